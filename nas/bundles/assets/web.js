// Restores and names images in a browser as `skipnas denoise` does. `nas.bundles.web` writes the page around it.
"use strict";
const network = JSON.parse(document.getElementById("network").textContent);
const [GRID, MOST_PIXELS, SHOWN_CLASSES] = [16, 2 ** 25, 5];

// ---- The runtime, in a worker, so that the page stays at hand.

function work() {
  let ort, session;
  onmessage = async ({ data }) => {
    try {
      if (data.model) {
        ort = await import(URL.createObjectURL(new Blob([data.runtime], { type: "text/javascript" })));
        ort.env.wasm.numThreads = 1; // more need a server that isolates the page
        ort.env.wasm.wasmBinary = data.wasm;
        session = await ort.InferenceSession.create(data.model, { enableCpuMemArena: false });
        postMessage({});
      } else {
        const { denoised, logits } = await session.run({ noisy: new ort.Tensor("float32", data.values, data.shape) });
        postMessage({ denoised: denoised.data, logits: logits ? logits.data : new Float32Array(0) });
      }
    } catch (error) {
      postMessage({ error: String(error?.message ?? error) });
    }
  };
}

const worker = new Worker(URL.createObjectURL(new Blob([`(${work})()`], { type: "text/javascript" })));
let last = Promise.resolve();

// Requests are answered one after the other.
function ask(message, given = []) {
  const answer = last.then(() => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error === undefined ? resolve(data) : reject(new Error(data.error)));
    worker.onerror = (event) => reject(new Error(event.message || "the worker has ended"));
    worker.postMessage(message, given);
  }));
  last = answer.catch(() => {});
  return answer;
}

async function unpacked(id) {
  const element = document.getElementById(id);
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  element.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const [model, runtime, wasm] = await Promise.all(["model", "runtime", "wasm"].map(unpacked));
  await ask({ model, runtime, wasm }, [model.buffer, runtime.buffer, wasm.buffer]);
}

// ---- Image files. What a browser would change without a word is refused.

class Refused extends Error {}

// Returns whether an image is stored in gray.
function storedGray(bytes) {
  const at = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  const refuse = (reason) => { throw new Refused(`${reason}; use skipnas denoise, or convert it`); };
  if (text(0, 8) === "\x89PNG\r\n\x1a\n") {
    if (bytes[24] > 8) refuse("has 16 bits a channel, of which a browser keeps 8");
    for (let place = 8; place + 8 <= bytes.length; place += 12 + at.getUint32(place)) {
      if (text(place + 4, place + 8) === "acTL") refuse("holds several images that follow each other");
    }
    return bytes[25] === 0 || bytes[25] === 4;
  }
  if (text(0, 3) === "\xff\xd8\xff") {
    for (let place = 2; place + 10 <= bytes.length; ) {
      const marker = bytes[place + 1];
      if (bytes[place] !== 0xff) break;
      if (marker === 0xff) place += 1;
      else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
        if (bytes[place + 9] > 3) refuse("has the mode CMYK");
        return bytes[place + 9] === 1;
      } else place += 2 + at.getUint16(place + 2);
    }
    throw new Refused("cannot be read as an image");
  }
  if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP") {
    if (text(12, 16) === "VP8X" && bytes[20] & 2) refuse("holds several images that follow each other");
    return false;
  }
  return refuse("is no PNG, JPEG or WebP image");
}

function canvasOf(width, height, canvas = document.createElement("canvas")) {
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

// Returns an image as it is to be seen: RGBA of 8 bits, all of it opaque, and whether it is stored in gray.
async function read(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const gray = storedGray(bytes);
  const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none", premultiplyAlpha: "none" })
    .catch(() => { throw new Refused("cannot be read as an image"); });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Refused(`has ${width}x${height} pixels, and the page takes at most ${(MOST_PIXELS / 1e6).toFixed(0)} million; use skipnas denoise`);
  }
  const context = canvasOf(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  for (let place = 3; place < pixels.length; place += 4) {
    if (pixels[place] !== 255) throw new Refused("has transparent pixels; use skipnas denoise");
  }
  return { width, height, pixels, gray };
}

// ---- A network on an image, on the whole of it or in tiles, as `nas.bundles.inference` does it.

// Returns values from 0 to 1 of a part of an image: (1, C, H, W), of the channels from the first one.
function part({ pixels, width }, first, top, bottom, left, right) {
  const [high, wide] = [bottom - top, right - left];
  const values = new Float32Array(network.channels * high * wide);
  for (let channel = first, place = 0; channel < first + network.channels; channel++) {
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++, place++) {
        values[place] = pixels[4 * (row * width + column) + channel] / 255;
      }
    }
  }
  return { values, shape: [1, network.channels, high, wide] };
}

const up = (value) => Math.ceil(value / GRID) * GRID;

// Returns the tiles that cover an axis: each reads from start to stop, and owns `core` pixels from first.
function spans(length, tiling) {
  const core = up(Math.ceil(length / Math.ceil(length / tiling.side)));
  const ramp = tiling.blend ? Math.min(tiling.overlap, core) : 0;
  const rise = (distance, cut) => {
    if (!cut) return 1;
    return ramp === 0 ? Number(distance > 0) : Math.min(Math.max(distance / ramp + 0.5, 0), 1);
  };
  const found = [];
  for (let first = 0; first < length; first += core) {
    const end = Math.min(first + core, length);
    const [start, stop] = [Math.max(0, first - tiling.overlap), Math.min(length, end + tiling.overlap)];
    const weights = Float32Array.from({ length: stop - start }, (_, place) =>
      rise(start + place + 0.5 - first, first > 0) * rise(end - start - place - 0.5, end < length));
    found.push({ start, stop, core: end - first, weights });
  }
  return found;
}

// Returns the planes of the restored image, not clipped, one after the other, and logits, the mean of tiles by area. A
// gray network takes each channel as an image.
async function restore(image, tell) {
  const { width, height } = image;
  const planes = image.gray && network.channels === 1 ? 1 : 3;
  const images = planes / network.channels;
  const { tiling } = network;
  const cut = width * height > tiling.whole ? tiling : { ...tiling, side: Math.max(width, height) };
  const [down, across] = [spans(height, cut), spans(width, cut)];
  const tiles = down.length * across.length;
  const restored = new Float32Array(planes * width * height);
  const logits = new Float64Array(network.classes.length);
  let done = 0;
  for (let first = 0; first < planes; first += network.channels) {
    for (const rows of down) {
      for (const columns of across) {
        if (tiles > 1) tell(`tile ${done + 1} of ${images * tiles}`);
        const given = part(image, first, rows.start, rows.stop, columns.start, columns.stop);
        const found = await ask(given, [given.values.buffer]);
        const [high, wide] = [rows.stop - rows.start, columns.stop - columns.start];
        for (let plane = first, place = 0; plane < first + network.channels; plane++) {
          for (let row = 0; row < high; row++) {
            const line = (plane * height + rows.start + row) * width + columns.start;
            for (let column = 0; column < wide; column++, place++) {
              const weight = rows.weights[row] * columns.weights[column];
              if (weight > 0) restored[line + column] += found.denoised[place] * weight;
            }
          }
        }
        addMean(logits, found.logits, (rows.core * columns.core) / (height * width) / images);
        done += 1;
      }
    }
  }
  return { restored, planes, logits, tiles };
}

// Adds the mean of the logits of N images.
function addMean(sums, logits, share = 1) {
  const images = logits.length / sums.length;
  logits.forEach((value, place) => { sums[place % sums.length] += (value * share) / images; });
}

// ---- An image made ready for its class, as `nas.data.preparation` does it, in the whole numbers of Pillow.

// Resizes the central box of planes of 8 bits, along rows first: by area (box), or linearly where it is enlarged.
function resized({ planes, width, height }, size, box, linear) {
  const lines = (inputs, count, from, to) => {
    const scale = Math.fround(Math.fround(to) - Math.fround(from)) / count;
    const filter = Math.max(scale, 1);
    const support = (linear ? 1 : 0.5) * filter;
    return Array.from({ length: count }, (_, place) => {
      const center = Math.fround(from) + (place + 0.5) * scale;
      const first = Math.max(Math.trunc(center - support + 0.5), 0);
      const end = Math.min(Math.trunc(center + support + 0.5), inputs);
      const weights = Array.from({ length: end - first }, (_, step) => {
        const x = (first + step - center + 0.5) * (1 / filter); // as Pillow rounds it, which decides at edges
        return linear ? Math.max(1 - Math.abs(x), 0) : Number(x > -0.5 && x <= 0.5);
      });
      const sum = weights.reduce((total, weight) => total + weight, 0) || 1;
      return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** 22)) };
    });
  };
  const pass = (plane, wide, high, count, from, to) => { // along the rows of a plane; the result is turned
    const made = new Uint8Array(count * high);
    lines(wide, count, from, to).forEach(({ first, weights }, column) => {
      for (let row = 0; row < high; row++) {
        let sum = 2 ** 21;
        weights.forEach((weight, step) => { sum += weight * plane[row * wide + first + step]; });
        made[column * high + row] = Math.min(Math.floor(sum / 2 ** 22), 255);
      }
    });
    return made;
  };
  const [left, top, right, bottom] = box;
  return {
    width: size[0],
    height: size[1],
    planes: planes.map((plane) =>
      pass(pass(plane, width, height, size[0], left, right), height, size[0], size[1], top, bottom)),
  };
}

function centred(image, size) {
  let { width, height } = image;
  if (width * size[1] <= height * size[0]) height = (width * size[1]) / size[0];
  else width = (height * size[0]) / size[1];
  const [left, top] = [(image.width - width) / 2, (image.height - height) / 2];
  return resized(image, size, [left, top, left + width, top + height], width < size[0]);
}

function prepared({ pixels, width, height, gray }) {
  const { channels, side, kept_side: kept, width: wide, height: high } = network.preparation;
  const plane = (value) => Uint8Array.from({ length: width * height }, (_, place) => value(4 * place));
  const one = (place) => (gray ? pixels[place] : // ITU-R 601 in whole numbers
    (19595 * pixels[place] + 38470 * pixels[place + 1] + 7471 * pixels[place + 2] + 32768) >> 16);
  let image = { width, height, planes: channels === 1 ? [plane(one)] :
    [0, 1, 2].map((channel) => plane((place) => pixels[place + channel])) };
  if (wide === high && wide <= Math.min(side, width, height) && Math.max(width, height) > kept) {
    image = centred(image, Array(2).fill(Math.min(side, width, height)));
  }
  if (image.width !== wide || image.height !== high) image = centred(image, [wide, high]);
  const values = Float32Array.from(image.planes.flatMap((found) => [...found]), (value) => value / 255);
  return { values, shape: [1, channels, high, wide] };
}

async function named(image, logits) {
  if (network.preparation) {
    const given = prepared(image);
    logits.fill(0);
    addMean(logits, (await ask(given, [given.values.buffer])).logits);
  }
  const most = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - most));
  const sum = powers.reduce((total, value) => total + value, 0);
  const shares = powers.map((value) => value / sum);
  const answer = network.threshold === null ? logits.indexOf(most) : Number(shares[1] >= network.threshold);
  return { answer, shares };
}

// ---- The page.

const state = document.getElementById("state");
const percent = (share) => `${(100 * share).toFixed(0)} %`;

function painted(canvas, image, pixels) {
  canvasOf(image.width, image.height, canvas).getContext("2d").putImageData(
    new ImageData(pixels, image.width, image.height), 0, 0);
}

function restoredPixels({ width, height, gray }, { restored, planes }) {
  const [pixels, area] = [new Uint8ClampedArray(4 * width * height).fill(255), width * height];
  for (let place = 0; place < area; place++) {
    const values = [0, 1, 2].map((channel) => restored[(planes === 1 ? 0 : channel) * area + place]);
    const mean = (values[0] + values[1] + values[2]) / 3;
    for (let channel = 0; channel < 3; channel++) { // the array clips to 0 and 255, and rounds
      pixels[4 * place + channel] = 255 * (gray ? mean : values[channel]);
    }
  }
  return pixels;
}

function listed(list, { answer, shares }) {
  const order = shares.map((_, place) => place).sort((a, b) => shares[b] - shares[a]).slice(0, SHOWN_CLASSES);
  for (const place of order) {
    const [row, name, bar, figure] = ["li", "span", "meter", "span"].map((tag) => document.createElement(tag));
    name.textContent = network.classes[place];
    if (place === answer) name.style.fontWeight = "bold";
    bar.value = shares[place];
    figure.textContent = percent(shares[place]);
    row.append(name, bar, figure);
    list.append(row);
  }
}

async function show(file) {
  const article = document.querySelector("template").content.cloneNode(true).querySelector("article");
  const find = (selector) => article.querySelector(selector);
  find("h2").textContent = file.name;
  document.getElementById("results").prepend(article);
  article.classList.add("working");
  try {
    const image = await read(file);
    painted(find(".noisy"), image, image.pixels);
    painted(find(".restored"), image, image.pixels);
    const views = find(".views");
    views.classList.toggle("small", Math.max(image.width, image.height) <= 128);
    views.style.setProperty("--wide", `${image.width}px`);
    views.style.setProperty("--aspect", image.width / image.height);
    find("input").addEventListener("input", ({ target }) => views.style.setProperty("--part", `${target.value}%`));
    const started = performance.now();
    const found = await restore(image, (line) => { find(".note").textContent = line; });
    painted(find(".restored"), image, restoredPixels(image, found));
    if (network.classes.length) {
      const result = await named(image, found.logits);
      find(".named").textContent = `${network.classes[result.answer]} (${percent(result.shares[result.answer])})`;
      listed(find("ol"), result);
    }
    const blob = await new Promise((done) => { find(".restored").toBlob(done, "image/png"); });
    const save = find(".save");
    save.href = URL.createObjectURL(blob);
    save.download = `${file.name.replace(/\.[^.]*$/, "")}-restored.png`;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    find(".note").textContent = `${image.width}x${image.height} pixels` +
      `${found.tiles > 1 ? `, ${found.tiles} tiles` : ""}, ${seconds} s`;
  } catch (error) {
    const reason = error instanceof Refused ? error.message : `cannot be restored (${error.message})`;
    const line = document.createElement("p");
    line.className = "wrong";
    line.textContent = `${file.name} ${reason}`;
    article.replaceChildren(line);
  }
  article.classList.remove("working");
}

let queue = load().then(
  () => { state.textContent = "The network is ready."; },
  (error) => {
    state.className = "wrong";
    state.textContent = `The network cannot be loaded: ${error.message}`;
    throw error;
  },
);
queue.catch(() => {});

function take(files) {
  for (const file of files) queue = queue.then(() => show(file));
  queue.catch(() => {});
}

const drop = document.getElementById("drop");
const input = drop.querySelector("input");
input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
