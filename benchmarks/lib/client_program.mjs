// Runs ONNX programs in onnxruntime-node or onnxruntime-web, as client_program.py does. Images and results are files of
// float32 values; a job also has the `shape` of its images.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packageName, folder] = process.argv.slice(2);
const found = createRequire(`${folder}/`).resolve(packageName);
const runtime = await import(pathToFileURL(found));
const ort = runtime.default ?? runtime;
const results = [];
for (const job of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(job.program)));
    const values = new Float32Array(new Uint8Array(readFileSync(job.images)).buffer);
    const outputs = await session.run({ noisy: new ort.Tensor("float32", values, job.shape) });
    session.outputNames.forEach((name, place) => {
      const { data, dims } = outputs[name];
      writeFileSync(`${job.to}${place}.bin`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      writeFileSync(`${job.to}${place}.json`, JSON.stringify(Array.from(dims)));
    });
    results.push("");
  } catch (error) {
    results.push(String(error.message ?? error).split(/\s+/).join(" ").slice(0, 300));
  }
}
process.stdout.write(JSON.stringify(results));
