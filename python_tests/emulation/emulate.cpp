// The scheduler behind emulate.h. One launch at a time in a process.
#include "emulate.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lv::emulate {
namespace {

constexpr size_t kStackBytes = 256 * 1024, kPage = 4096;
constexpr size_t kGuardBytes = 4096, kMaxSharedBytes = 48 * 1024, kMaxSharedBytesOfCluster = 227 * 1024;
constexpr size_t kCopyBytes = 16;
constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;
constexpr int kMaxCluster = 8;

enum State : unsigned char { kDone, kReady, kAtBarrier, kAtExchange, kAtCluster };

struct Copy {
  void* to;
  const void* from;
  int group;  // counts the commits before it
};

// Runs one thread of every block, or of every block at one place of its cluster. Switches go by _setjmp and _longjmp,
// which, unlike swapcontext, make no system call; the context is for the first switch alone.
struct Fiber {
  ucontext_t context;
  jmp_buf at;
  bool started = false;
  char* stack;
  uint3 index;
  int line;  // of the barrier or exchange that it waits at
  unsigned mask, ballot;
  int source;
  unsigned char given[kMaxValue], taken[kMaxValue];
  bool arrived;  // at the cluster's barrier, without having waited
  int phase;     // of that barrier, when it arrived
  std::vector<Copy> copies;
  int commits;

  Fiber();
  ~Fiber() { munmap(stack, kStackBytes); }
};

struct Schedule {
  enum Kind { kForward, kReverse, kRound, kRandom } kind = kForward;
  std::mt19937 random;
};

struct SharedMemory {
  std::vector<unsigned char> bytes;
  unsigned char* begin;
};

struct Engine {
  std::mutex one_launch;
  Schedule schedule;
  std::vector<std::unique_ptr<Fiber>> fibers;  // by thread, counted through the blocks that run at a time
  std::vector<unsigned char> states;           // by place in `order`
  std::vector<int> order, place;               // thread at a place, place of a thread
  jmp_buf scheduler;
  int threads = 0, blocks = 1, current = -1, last_place = 0;  // threads of a block, blocks at a time
  std::vector<int> at_barrier, running;                       // threads of each block
  int at_cluster = 0, cluster_phase = 0;
  bool idle = true;  // no fiber is in the middle of a kernel
  std::vector<SharedMemory> shared;
  size_t shared_bytes = 0;
  uint3 first_block;
  std::exception_ptr error;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;

  int all() const { return threads * blocks; }
  int block() const { return current / threads; }
  Fiber& fiber() { return *fibers[current]; }
  unsigned char& state_of(int thread) { return states[place[thread]]; }

  void run_blocks();
  void begin_blocks();
  void end_thread();
  int next_place();
  void resume();
  void yield();
  void wait(State why, int line);
  void complete_barrier();
  void complete_exchange(unsigned mask);
  void arrive();
  void wait_for_cluster(int line);
  void check_guards(const SharedMemory& memory) const;
  std::string stuck() const;
};

Engine engine;

std::string where() {
  const auto text = [](const uint3& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
  };
  return " in thread " + text(threadIdx) + " of block " + text(blockIdx);
}

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("emulation: " + what); }

void fiber_main() {
  for (;;) {  // once for each block
    try {
      engine.body(engine.context);
    } catch (...) {
      engine.error = std::current_exception();
    }
    engine.end_thread();
    engine.yield();
  }
}

Fiber::Fiber() {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack = static_cast<char*>(memory);
  mprotect(stack, kPage, PROT_NONE);  // an overflow faults
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
}

void Engine::begin_blocks() {
  const int count = all();
  order.resize(count), place.resize(count);
  for (int i = 0; i < count; ++i) order[i] = schedule.kind == Schedule::kReverse ? count - 1 - i : i;
  if (schedule.kind == Schedule::kRandom) std::shuffle(order.begin(), order.end(), schedule.random);
  for (int i = 0; i < count; ++i) place[order[i]] = i;
  states.assign(count, kReady);
  while (fibers.size() < static_cast<size_t>(count)) fibers.push_back(std::make_unique<Fiber>());
  for (int i = 0; i < count; ++i) {
    const unsigned id = static_cast<unsigned>(i % threads);
    Fiber& f = *fibers[i];
    f.index = {id % blockDim.x, id / blockDim.x % blockDim.y, id / (blockDim.x * blockDim.y)};
    f.arrived = false, f.commits = 0;
    f.copies.clear();
  }
  shared.resize(blocks);
  for (SharedMemory& memory : shared) {
    // Aligned to 16 bytes as on a GPU and not to more; NaN in every float type, guards included.
    memory.bytes.assign(shared_bytes + 2 * kGuardBytes + 32, 0xFF);
    unsigned char* base = memory.bytes.data() + kGuardBytes;
    memory.begin = base + (48 - reinterpret_cast<uintptr_t>(base) % 32) % 32;
  }
  at_barrier.assign(blocks, 0), running.assign(blocks, threads);
  last_place = -1, at_cluster = 0, cluster_phase = 0;
}

// Of a block that has ended nobody may read the shared memory.
void Engine::end_thread() {
  state_of(current) = kDone;
  if (--running[block()] > 0 || error) return;
  SharedMemory& memory = shared[block()];
  try {
    check_guards(memory);
  } catch (...) {
    error = std::current_exception();
  }
  std::fill_n(memory.begin, shared_bytes, static_cast<unsigned char>(0xFF));
}

// Forward and reverse run the first thread that can; round takes turns; random starts anywhere.
int Engine::next_place() {
  int start = 0;
  if (schedule.kind == Schedule::kRound) start = (last_place + 1) % all();
  if (schedule.kind == Schedule::kRandom) start = static_cast<int>(schedule.random() % all());
  const void* found = memchr(states.data() + start, kReady, all() - start);
  if (found == nullptr) found = memchr(states.data(), kReady, start);
  return found == nullptr ? -1 : static_cast<int>(static_cast<const unsigned char*>(found) - states.data());
}

// Runs the current fiber until it yields.
void Engine::resume() {
  if (_setjmp(scheduler) != 0) return;
  if (fiber().started) _longjmp(fiber().at, 1);
  fiber().started = true;
  setcontext(&fiber().context);
}

void Engine::yield() {
  if (_setjmp(fiber().at) == 0) _longjmp(scheduler, 1);
}

void Engine::run_blocks() {
  if (!idle) fibers.clear();  // after an error
  idle = false;
  begin_blocks();
  for (int chosen = next_place(); chosen >= 0; chosen = next_place()) {
    last_place = chosen;
    current = order[chosen];
    threadIdx = fiber().index;
    blockIdx = {first_block.x + static_cast<unsigned>(block()), first_block.y, first_block.z};
    resume();
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
  if (std::any_of(states.begin(), states.end(), [](unsigned char s) { return s != kDone; })) fail(stuck());
  idle = true;
}

void Engine::wait(State why, int line) {
  state_of(current) = why;
  fiber().line = line;
  if (why == kAtBarrier) complete_barrier();
  if (why == kAtExchange) complete_exchange(fiber().mask);
  yield();
}

void Engine::complete_barrier() {
  if (++at_barrier[block()] < threads) return;
  at_barrier[block()] = 0;
  for (int i = block() * threads; i < (block() + 1) * threads; ++i) {
    if (fibers[i]->line != fiber().line)
      fail("threads of one block meet at the barriers of lines " + std::to_string(fibers[i]->line) + " and " +
           std::to_string(fiber().line));
    state_of(i) = kReady;
  }
}

void Engine::arrive() {
  if (fiber().arrived) fail("a thread arrives at the cluster's barrier twice without waiting" + where());
  fiber().arrived = true, fiber().phase = cluster_phase;
  if (++at_cluster < all()) return;
  at_cluster = 0, ++cluster_phase;
  for (unsigned char& state : states)
    if (state == kAtCluster) state = kReady;
}

void Engine::wait_for_cluster(int line) {
  if (!fiber().arrived) fail("a thread waits at the cluster's barrier without having arrived" + where());
  fiber().arrived = false;
  if (fiber().phase == cluster_phase) wait(kAtCluster, line);
}

void Engine::complete_exchange(unsigned mask) {
  const int in_block = current % threads / warpSize * warpSize, first = block() * threads + in_block;
  unsigned ballot = 0;
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (in_block + lane >= threads) fail("a shuffle's mask names a lane that is not in the block" + where());
    const Fiber& f = *fibers[first + lane];
    if (state_of(first + lane) != kAtExchange) return;
    if (f.mask != mask || f.line != fiber().line)
      fail("lanes of one mask meet at the shuffles of lines " + std::to_string(f.line) + " and " +
           std::to_string(fiber().line));
    if (f.given[0]) ballot |= 1u << lane;
  }
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Fiber& f = *fibers[first + lane];
    if (f.source < 0 || f.source >= warpSize || !(mask >> f.source & 1))
      fail("a shuffle reads lane " + std::to_string(f.source) + ", which does not take part" + where());
    memcpy(f.taken, fibers[first + f.source]->given, kMaxValue);
    f.ballot = ballot;
    state_of(first + lane) = kReady;
  }
}

void Engine::check_guards(const SharedMemory& memory) const {
  const auto poisoned = [](const unsigned char* begin, const unsigned char* end) {
    return std::all_of(begin, end, [](unsigned char byte) { return byte == 0xFF; });
  };
  const unsigned char *first = memory.bytes.data(), *last = first + memory.bytes.size();
  if (!poisoned(first, memory.begin) || !poisoned(memory.begin + shared_bytes, last))
    fail("shared memory was written out of its " + std::to_string(shared_bytes) + " bytes");
}

std::string Engine::stuck() const {
  int done = 0, barrier = 0, exchange = 0, cluster = 0, line = 0;
  for (int i = 0; i < all(); ++i) {
    const unsigned char state = states[place[i]];
    done += state == kDone, barrier += state == kAtBarrier, exchange += state == kAtExchange;
    cluster += state == kAtCluster;
    if (state != kDone) line = fibers[i]->line;
  }
  return "deadlock: " + std::to_string(barrier) + " threads wait at a barrier and " + std::to_string(exchange) +
         " at a shuffle (one at line " + std::to_string(line) + ") for others, " + std::to_string(cluster) +
         " at the cluster's barrier, " + std::to_string(done) + " have left the kernel";
}

void check_launch(dim3 grid, dim3 block, size_t shared_bytes, int cluster) {
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) fail("invalid block size");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("invalid grid: no blocks");
  if (grid.x > INT32_MAX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) fail("invalid grid: too many blocks");
  if (cluster == 0 && shared_bytes > kMaxSharedBytes) fail("more than 48 KiB of shared memory");
  if (shared_bytes > kMaxSharedBytesOfCluster) fail("more than 227 KiB of shared memory");
  if (cluster < 0 || cluster > kMaxCluster) fail("a cluster of more than 8 blocks");
  if (cluster > 0 && grid.x % cluster != 0) fail("invalid grid: not a whole number of clusters");
}

}  // namespace

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context, int cluster) {
  const std::lock_guard<std::mutex> lock(engine.one_launch);
  check_launch(grid, block, shared_bytes, cluster);
  gridDim = grid, blockDim = block;
  engine.threads = static_cast<int>(block.x * block.y * block.z);
  engine.blocks = std::max(cluster, 1);
  engine.shared_bytes = shared_bytes;
  engine.body = body, engine.context = context;
  const unsigned columns = grid.x / engine.blocks;
  std::vector<size_t> groups(static_cast<size_t>(columns) * grid.y * grid.z);
  for (size_t i = 0; i < groups.size(); ++i) groups[i] = i;
  if (engine.schedule.kind == Schedule::kReverse) std::reverse(groups.begin(), groups.end());
  if (engine.schedule.kind == Schedule::kRandom) std::shuffle(groups.begin(), groups.end(), engine.schedule.random);
  for (const size_t id : groups) {
    engine.first_block = {static_cast<unsigned>(id % columns * engine.blocks),
                          static_cast<unsigned>(id / columns % grid.y), static_cast<unsigned>(id / columns / grid.y)};
    engine.run_blocks();
  }
}

void* shared_memory() {
  if (engine.shared_bytes == 0) fail("the kernel uses shared memory and its launch gave none");
  return engine.shared[engine.block()].begin;
}

void* shared_of_block(void* own, unsigned rank) {
  const ptrdiff_t offset = static_cast<unsigned char*>(own) - engine.shared[engine.block()].begin;
  if (offset < 0 || static_cast<size_t>(offset) >= engine.shared_bytes)
    fail("a place outside the block's shared memory is looked for in another's" + where());
  if (rank >= static_cast<unsigned>(engine.blocks)) fail("a cluster has no block " + std::to_string(rank) + where());
  return engine.shared[rank].begin + offset;
}

void cluster_arrive() { engine.arrive(); }
void cluster_wait() { engine.wait_for_cluster(0); }

void copy_async(void* to, const void* from) {
  check_aligned(to, kCopyBytes);
  check_aligned(from, kCopyBytes);
  const bool at_once = engine.schedule.kind == Schedule::kRandom && engine.schedule.random() % 2 == 0;
  if (at_once)
    memcpy(to, from, kCopyBytes);
  else
    engine.fiber().copies.push_back({to, from, engine.fiber().commits});
}

void copies_commit() { ++engine.fiber().commits; }

void wait_for_copies(int pending) {
  if (engine.schedule.kind == Schedule::kRandom) engine.yield();  // others may go on between a copy and its wait
  Fiber& f = engine.fiber();
  const auto waiting = std::stable_partition(f.copies.begin(), f.copies.end(),
                                             [&](const Copy& copy) { return copy.group + pending < f.commits; });
  for (auto copy = f.copies.begin(); copy != waiting; ++copy) memcpy(copy->to, copy->from, kCopyBytes);
  f.copies.erase(f.copies.begin(), waiting);
}

void check_aligned(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0)
    fail("misaligned access of " + std::to_string(bytes) + " bytes" + where());
}

void sync_block(int line) { engine.wait(kAtBarrier, line); }

unsigned exchange(unsigned mask, int source, unsigned char value[kMaxValue], int line) {
  Fiber& f = engine.fiber();
  if (!(mask >> lane() & 1)) fail("a shuffle's mask lacks the lane that calls" + where());
  f.mask = mask, f.source = source;
  memcpy(f.given, value, kMaxValue);
  engine.wait(kAtExchange, line);
  memcpy(value, f.taken, kMaxValue);
  return f.ballot;
}

}  // namespace lv::emulate

// For ctypes; 0 where there is no such schedule.
extern "C" __attribute__((visibility("default"))) int lv_emulate_set_schedule(const char* name, unsigned seed) {
  using lv::emulate::Schedule;
  // In the order of Schedule::Kind.
  const std::string names[] = {"forward", "reverse", "round", "random"};
  const auto* found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) return 0;
  Schedule& schedule = lv::emulate::engine.schedule;
  schedule.kind = static_cast<Schedule::Kind>(found - names);
  schedule.random.seed(seed);
  return 1;
}
