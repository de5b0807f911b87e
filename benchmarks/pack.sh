#!/usr/bin/env bash
# pack.sh ARCHIVE.tar.xz [FOLDER...]: one archive for a machine that has a GPU and torch, but no network. It holds this
# checkout as it is committed, the packages that such a machine lacks, and folders of data, such as FashionMNIST.
#
# There, in an empty folder, with torch, torchvision, scikit-learn, scikit-image, onnx, onnxruntime, pandas,
# safetensors, typer and rich for Python 3.12:
#     tar -xJf ARCHIVE.tar.xz
#     PYTHONPATH=site:project python3 -m benchmarks.gpu --minutes 8
# PYTHON_VERSION=3.11 packs for that Python. The archive may have 60 MiB; it takes minutes.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
most=60
archive=$(realpath -m "$1"); shift
project=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT

packages=(
    ray==2.60.0 attrs jsonschema jsonschema-specifications referencing rpds-py
    pydantic==2.14.4 pydantic-core==2.50.5 annotated-types typing-inspection
    optuna==5.0.0 alembic colorlog greenlet Mako SQLAlchemy==2.1.9
    plotly==7.1.0 tensorboardX torchjd==0.18.0
)
# pip takes a platform by its name alone, so that each has to be named that wheels are made for.
platforms=()
for glibc in 2_39 2_35 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do
    platforms+=(--platform "manylinux_${glibc}_x86_64")
done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
# pip keeps the run bits of Ray's programs. Python's zipfile does not, and Ray cannot start without them.
python3 -m pip install -q --no-deps --no-compile --only-binary=:all: --implementation cp \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --target "$dir/site" "${packages[@]}" \
    2>"$dir/errors" || { cat "$dir/errors" >&2; exit 1; }
# Parts that no search needs.
rm -rf "$dir"/site/{bin,share} "$dir"/site/ray/{jars,rllib,llm,cpp,dashboard/client} \
    "$dir"/site/plotly/{labextension,package_data/widgetbundle.js}
find "$dir/site" -type d -name tests -prune -exec rm -rf {} +

mkdir "$dir/project" "$dir/data"
git -C "$project" archive HEAD | tar -C "$dir/project" -xf -
for folder in "$@"; do
    cp -rL "$folder" "$dir/data"
done
find "$dir/data" -name '*.gz' ! -name '*.tar.gz' -exec gunzip -f {} +  # xz packs what is in them better

tar -C "$dir" -cf - site project data | xz -T0 --x86 --lzma2=preset=9e >"$archive"
size=$(($(stat -c %s "$archive") / 1024 / 1024))
echo "$archive: $size MiB"
[ "$size" -lt "$most" ] || { echo "error: that is more than $most MiB; leave data out" >&2; exit 1; }
