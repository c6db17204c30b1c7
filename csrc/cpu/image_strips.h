// How the CPU sums over the pixels of an image: in strips of neighbouring channels, and in these block by block, so
// that what one pass over a block has read is still in the first-level cache for the next.
#pragma once

#include "../images.h"
#include "parallel.h"

namespace lv {

constexpr int64_t kLanes = 128;             // channels of a strip, channels-last: sums side by side
constexpr int64_t kPlanes = 16;             // channels of a strip, contiguous: one after the other
constexpr int64_t kRows = 32;               // pixels of a block, channels-last
constexpr int64_t kBlock = kLanes * kRows;  // elements of a block, at most; its sums are float, merged in double

// Pixels of one channel, or of all channels of the strip (channels-last): `rows` rows of `width` neighbouring elements,
// `stride` apart, `offset` from the start of the sample.
struct Block {
  int64_t offset, rows, width, stride;
  int64_t lane, lanes;            // the channels [lane, lane + lanes) of the strip
  int64_t pixels_before, pixels;  // of these channels, in the strip
};

// Pixels [begin, end) of channels [channel, channel + channels).
struct Strip {
  ImageShape shape;
  bool channels_last;
  int64_t chunk, begin, end, channel, channels;

  int64_t blocks_of_channel() const {
    const int64_t step = channels_last ? kRows : kBlock;
    return (end - begin + step - 1) / step;
  }
  int64_t blocks() const { return blocks_of_channel() * (channels_last ? 1 : channels); }
  Block block(int64_t i) const {
    if (channels_last) {
      const int64_t before = i * kRows, pixels = std::min(kRows, end - begin - before);
      const int64_t offset = (begin + before) * shape.channels + channel;
      return {offset, pixels, channels, shape.channels, 0, channels, before, pixels};
    }
    const int64_t lane = i / blocks_of_channel(), before = i % blocks_of_channel() * kBlock;
    const int64_t pixels = std::min(kBlock, end - begin - before);
    return {(channel + lane) * shape.pixels + begin + before, 1, pixels, pixels, lane, 1, before, pixels};
  }
};

struct Strips {
  ImageShape shape;
  bool channels_last;
  int64_t chunk_pixels, chunks, planes = kPlanes;

  int64_t channels() const { return channels_last ? kLanes : planes; }
  int64_t across() const { return (shape.channels + channels() - 1) / channels(); }
  int64_t count() const { return chunks * across(); }
  Strip operator[](int64_t i) const {
    // In the order of memory.
    const int64_t chunk = channels_last ? i / across() : i % chunks;
    const int64_t begin = chunk * chunk_pixels, channel = (channels_last ? i % across() : i / chunks) * channels();
    return {shape,
            channels_last,
            chunk,
            begin,
            std::min(begin + chunk_pixels, shape.pixels),
            channel,
            std::min(channels(), shape.channels - channel)};
  }
};

// For each sample: collect(sample, strip) over its `collected` strips, finish(sample), apply(sample, strip) over its
// `applied` ones. A thread keeps to its samples where there is one for each, so that what `collect` read is still in
// the cache for `apply`, which goes backwards for the same reason; else threads share a sample.
template <typename Collect, typename Finish, typename Apply>
void collect_and_apply(const Strips& collected, const Strips& applied, int threads, const Collect& collect,
                       const Finish& finish, const Apply& apply) {
  const int64_t samples = collected.shape.samples, before = collected.count(), after = applied.count();
  const int64_t elements = samples * collected.shape.elements();
  if (samples >= threads) {
    parallel_for(samples, elements, threads, [&](int64_t sample) {
      for (int64_t i = 0; i < before; ++i) collect(sample, collected[i]);
      finish(sample);
      for (int64_t i = after; i-- > 0;) apply(sample, applied[i]);
    });
    return;
  }
  parallel_for(samples * before, elements, threads, [&](int64_t i) { collect(i / before, collected[i % before]); });
  for (int64_t sample = 0; sample < samples; ++sample) finish(sample);
  parallel_for(samples * after, elements, threads, [&](int64_t i) { apply(i / after, applied[i % after]); });
}

}  // namespace lv
