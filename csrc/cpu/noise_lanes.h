// fill_noise of noise_buffer.h with vectors of counters. Included once for each instruction set, after its `#pragma GCC
// target`, with LV_ISA its namespace, LV_VECTOR the bytes of its vectors and LV_MULTIPLY its product of the low halves
// of 64 bits (from a plain loop the compiler makes three times as many instructions).
namespace lv {
namespace LV_ISA {
namespace {

typedef uint64_t Lanes __attribute__((vector_size(LV_VECTOR)));
typedef int Halves __attribute__((vector_size(LV_VECTOR)));
constexpr int kLanes = LV_VECTOR / 8;

// words[i][at + j] = word i of block `block + at + j`, for the blocks of `vectors` vectors: several, so that their
// products overlap. A counter lies in the low half of its lane. What the upper halves hold is never read, so that a
// product serves as its own low half.
template <int vectors>
inline __attribute__((always_inline)) void word_lanes(const NoiseKey& key, uint32_t sample, uint32_t block, int at,
                                                      NoiseWords& words) {
  Lanes c[4][vectors], index;
  for (int j = 0; j < kLanes; ++j) index[j] = static_cast<uint32_t>(j);
  for (int i = 0; i < vectors; ++i) {
    c[0][i] = index + (block + static_cast<uint32_t>(at + i * kLanes));
    c[1][i] = Lanes{} + key.step, c[2][i] = Lanes{} + sample, c[3][i] = Lanes{} + key.stream;
  }
  const Lanes factor0 = Lanes{} + kPhiloxFactor0, factor1 = Lanes{} + kPhiloxFactor1;
  uint32_t key0 = key.seed_low, key1 = key.seed_high;
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round, key0 += kPhiloxKey0, key1 += kPhiloxKey1) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
      const Lanes product0 = (Lanes)LV_MULTIPLY((Halves)factor0, (Halves)c[0][i]);
      const Lanes product1 = (Lanes)LV_MULTIPLY((Halves)factor1, (Halves)c[2][i]);
      c[0][i] = (product1 >> 32) ^ c[1][i] ^ (Lanes{} + key0), c[1][i] = product1;
      c[2][i] = (product0 >> 32) ^ c[3][i] ^ (Lanes{} + key1), c[3][i] = product0;
    }
  }
  for (int word = 0; word < 4; ++word)
    for (int i = 0; i < vectors; ++i)
      for (int j = 0; j < kLanes; ++j) words[word][at + i * kLanes + j] = static_cast<uint32_t>(c[word][i][j]);
}

}  // namespace

void fill_noise(const NoiseKey& key, uint32_t sample, int64_t begin, int64_t count, float* z) {
  constexpr int kTogether = 4;
  const uint32_t block = static_cast<uint32_t>(begin / 4);
  const int blocks = static_cast<int>((count + 3) / 4);
  NoiseWords words;
  int at = 0;
  for (; at + (kTogether - 1) * kLanes < blocks; at += kTogether * kLanes)
    word_lanes<kTogether>(key, sample, block, at, words);
  for (; at < blocks; at += kLanes) word_lanes<1>(key, sample, block, at, words);
  normals_of_words(words, at, count, z);
}

}  // namespace LV_ISA
}  // namespace lv
