#!/usr/bin/env bash
# pack.sh ARCHIVE.tar.xz [DATA...]: this checkout, as it is committed, in one archive for a machine that has a GPU but no
# network, with the packages that such a machine lacks and folders of data sets, such as torchvision's FashionMNIST.
#
# There, in an empty folder, with Python 3.12, torch, torchvision, scikit-learn, scikit-image, onnx, onnxruntime, pandas,
# safetensors, typer and rich installed:
#     tar -xJf ARCHIVE.tar.xz
#     PYTHONPATH=site:project python3 -m benchmarks.gpu --minutes 8
# PYTHON_VERSION=3.11 packs for another Python.
set -euo pipefail
most=$((60 * 1024 * 1024))
version=${PYTHON_VERSION:-3.12}

[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
archive=$(realpath -m "$1"); shift
project=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT

# pip takes the name of a platform literally, so each that wheels are made for is named.
platforms=()
for glibc in 2_39 2_35 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
for old in manylinux2014 manylinux1; do platforms+=(--platform "${old}_x86_64"); done
# pip keeps the run bits of Ray's programs; Python's zipfile does not, and Ray then cannot start.
python3 -m pip install -q --no-deps --no-compile --only-binary=:all: --python-version "$version" --implementation cp \
    "${platforms[@]}" --target "$dir/site" \
    ray==2.60.0 click cloudpickle filelock jsonschema jsonschema-specifications msgpack referencing requests rpds-py \
    optuna==5.0.0 alembic colorlog greenlet Mako SQLAlchemy==2.1.9 \
    plotly==7.1.0 tensorboardX torchjd==0.18.0 \
    2>"$dir/pip.log" || { cat "$dir/pip.log" >&2; exit 1; }
# What no search needs.
rm -rf "$dir"/site/{bin,share} "$dir"/site/ray/{jars,rllib,llm,cpp,dashboard/client} \
    "$dir"/site/plotly/{labextension,package_data/widgetbundle.js}
find "$dir/site" -type d -name tests -prune -exec rm -rf {} +

mkdir "$dir/project" "$dir/data"
git -C "$project" archive HEAD | tar -C "$dir/project" -xf -
for data in "$@"; do
    cp -rL "$data" "$dir/data"
done
find "$dir/data" -name '*.gz' ! -name '*.tar.gz' -exec gunzip -f {} +  # the archive packs them better

tar -C "$dir" -cf - site project data | xz -T0 --x86 --lzma2=preset=9e >"$archive"
size=$(stat -c %s "$archive")
echo "$archive: $((size / 1024 / 1024)) MiB"
[ "$size" -le "$most" ] || { echo "error: more than $((most / 1024 / 1024)) MiB; leave data out" >&2; exit 1; }
