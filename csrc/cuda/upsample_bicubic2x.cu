#include "../upsample_bicubic2x.h"
#include "launch.h"
#include "vector.h"

namespace lv {
namespace {

// Outputs (row, 2 i) and (row, 2 i + 1) of a plane whose pixels are `stride` apart. A sample of x has fewer than 2^32
// elements, since the noise of y has no more blocks.
__device__ void interpolate_pair(const BicubicWeights<float>& w, const float* x, int height, int width, uint32_t stride,
                                 int row, int i, float& even, float& odd) {
  const int near = row / 2, side = row % 2 != 0 ? 1 : -1;
  uint32_t rows[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) rows[j] = clamped(near + (j - 1) * side, height) * static_cast<uint32_t>(width);
  float column[5];
#pragma unroll
  for (int j = 0; j < 5; ++j) {
    const uint32_t at = clamped(i + j - 2, width);
    column[j] = w(x[(rows[0] + at) * stride], x[(rows[1] + at) * stride], x[(rows[2] + at) * stride],
                  x[(rows[3] + at) * stride]);
  }
  even = w(column[3], column[2], column[1], column[0]);
  odd = w(column[1], column[2], column[3], column[4]);
}

// Four neighbours of one plane.
template <typename T>
__device__ void write_four(T* to, int64_t stride, const T (&values)[4]) {
  if (stride == 1) {
    Vector<T, 4> four;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) four.lane[lane] = values[lane];
    four.write(to);
  } else {
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) to[lane * stride] = values[lane];
  }
}

// A thread writes the four elements of one block of noise: two pairs, each in one row, since rows of y are even.
template <typename U>
__global__ void __launch_bounds__(kThreads) upsample_bicubic2x_kernel(UpsampleBicubic2x<float, U> p) {
  const uint32_t plane_blocks = static_cast<uint32_t>(p.pixels()), width = static_cast<uint32_t>(p.width);
  const uint32_t block = blockIdx.x * kThreads + threadIdx.x;
  if (block >= p.elements()) return;
  const uint32_t channel = block / plane_blocks, in_plane = block % plane_blocks;
  const int64_t place = 4 * static_cast<int64_t>(in_plane);  // of the first element in the plane
  const uint32_t twice = 2 * (in_plane % width), wrapped = twice >= width;
  const int row = static_cast<int>(2 * (in_plane / width) + wrapped), i = static_cast<int>(twice - wrapped * width);
  const uint32_t stride = p.channels_last ? static_cast<uint32_t>(p.channels) : 1;
  const int64_t x_plane = p.channels_last ? channel : channel * p.pixels();
  const int64_t y_plane = p.channels_last ? channel : 4 * (channel * p.pixels());
  for (int64_t sample = blockIdx.y; sample < p.samples; sample += gridDim.y) {
    const float* x = p.x + sample * p.elements() + x_plane;
    float y[4];
#pragma unroll 1
    for (int pair = 0; pair < 2; ++pair) {  // one after the other, for half the registers
      const bool next_row = i + pair == p.width;
      float even, odd;
      interpolate_pair(p.weights, x, static_cast<int>(p.height), static_cast<int>(p.width), stride, row + next_row,
                       next_row ? 0 : i + pair, even, odd);
      if (pair == 0)
        y[0] = even, y[1] = odd;
      else
        y[2] = even, y[3] = odd;
    }
    if (p.sigma != 0.0f) {
      float z[4];
      noise_normals(p.key, p.first + static_cast<uint32_t>(sample), block, z);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) y[lane] = p.renoised(y[lane], z[lane]);
    }
    write_four(p.y + 4 * sample * p.elements() + y_plane + place * stride, stride, y);
    if (p.u == nullptr) continue;
    U u[4];
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) u[lane] = p.input(y[lane]);
    write_four(p.u + 4 * sample * p.elements() + channel + place * p.channels, p.channels, u);
  }
}

}  // namespace

template <typename X, typename U>
void upsample_bicubic2x_cuda(const UpsampleBicubic2x<X, U>& p, void* stream) {
  LV_LAUNCH(upsample_bicubic2x_kernel<U>, grid_for(p.elements(), p.samples), kThreads, 0, stream, p);
}

template void upsample_bicubic2x_cuda(const UpsampleBicubic2x<float, float>&, void*);
template void upsample_bicubic2x_cuda(const UpsampleBicubic2x<float, bfloat16>&, void*);
template void upsample_bicubic2x_cuda(const UpsampleBicubic2x<float, float16>&, void*);

}  // namespace lv
