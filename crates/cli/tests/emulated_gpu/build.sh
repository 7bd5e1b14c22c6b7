#!/bin/sh
# Builds the emulated GPU's libraries into a folder: build.sh OUT_DIR, or build.sh --test OUT_DIR to test them too.
set -eu
test=
if [ "$1" = --test ]; then
    test=yes
    shift
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/include"
out=$(cd "$1" && pwd)
# Changes with everything that a compiled program depends on.
version=$(cat "$here"/abi.h "$here"/device.h "$here"/platform.cuh "$here"/compiler.cpp "$here"/kernels.cpp | cksum | cut -d ' ' -f 1)
flags="-DEMULATED_VERSION=${version}ULL -std=c++17 -O2 -ftree-vectorize -fPIC -fvisibility=hidden -Wall -Wextra -pthread"

cp "$here/abi.h" "$here/device.h" "$here/platform.cuh" "$out/include/"
cd "$here"
g++ $flags -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" driver.cpp driver_memory.cpp driver_launch.cpp memory.cpp queue.cpp modules.cpp \
    blocks.cpp worker.cpp meeting.cpp runtime.cpp matrices.cpp signals.cpp -ldl &
driver=$!
g++ $flags -shared -Wl,-soname,libnvrtc.so.13 -o "$out/libnvrtc.so" compiler.cpp kernels.cpp -ldl
wait $driver
ln -sf libcuda.so.1 "$out/libcuda.so"
# It asks the driver what is device memory.
g++ $flags -shared -Wl,-soname,libcublasLt.so.13 -o "$out/libcublasLt.so" products.cpp gemm.cpp "$out/libcuda.so.1" -Wl,-rpath,'$ORIGIN'

if [ -n "$test" ]; then
    g++ $flags -o "$out/run_self_test" self_test/*.cpp -ldl
    "$out/run_self_test" "$out"
fi
