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
constexpr size_t kGuardBytes = 4096, kMaxSharedBytes = 48 * 1024;
constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;

enum State : unsigned char { kDone, kReady, kAtBarrier, kAtExchange };

// Runs one thread of every block. Switches go by _setjmp and _longjmp, which, unlike swapcontext, make no system call;
// the context is for the first switch alone.
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

  Fiber();
  ~Fiber() { munmap(stack, kStackBytes); }
};

struct Schedule {
  enum Kind { kForward, kReverse, kRound, kRandom } kind = kForward;
  std::mt19937 random;
};

struct Engine {
  std::mutex one_launch;
  Schedule schedule;
  std::vector<std::unique_ptr<Fiber>> fibers;  // by thread
  std::vector<unsigned char> states;           // by place in `order`
  std::vector<int> order, place;               // thread at a place, place of a thread
  jmp_buf scheduler;
  int threads = 0, current = -1, last_place = 0, at_barrier = 0;
  bool idle = true;  // no fiber is in the middle of a kernel
  std::vector<unsigned char> shared;
  unsigned char* shared_begin = nullptr;
  size_t shared_bytes = 0;
  std::exception_ptr error;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;

  Fiber& fiber() { return *fibers[current]; }
  unsigned char& state_of(int thread) { return states[place[thread]]; }

  void run_block();
  void begin_block();
  int next_place();
  void resume();
  void yield();
  void wait(State why, int line);
  void complete_barrier();
  void complete_exchange(int first_thread, unsigned mask);
  void check_guards() const;
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
    engine.state_of(engine.current) = kDone;
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

void Engine::begin_block() {
  order.resize(threads), place.resize(threads);
  for (int i = 0; i < threads; ++i) order[i] = schedule.kind == Schedule::kReverse ? threads - 1 - i : i;
  if (schedule.kind == Schedule::kRandom) std::shuffle(order.begin(), order.end(), schedule.random);
  for (int i = 0; i < threads; ++i) place[order[i]] = i;
  states.assign(threads, kReady);
  while (fibers.size() < static_cast<size_t>(threads)) fibers.push_back(std::make_unique<Fiber>());
  for (int i = 0; i < threads; ++i) {
    const unsigned id = static_cast<unsigned>(i);
    fibers[i]->index = {id % blockDim.x, id / blockDim.x % blockDim.y, id / (blockDim.x * blockDim.y)};
  }
  // Aligned to 16 bytes as on a GPU and not to more; NaN in every float type, guards included.
  shared.assign(shared_bytes + 2 * kGuardBytes + 32, 0xFF);
  unsigned char* base = shared.data() + kGuardBytes;
  shared_begin = base + (48 - reinterpret_cast<uintptr_t>(base) % 32) % 32;
  last_place = -1, at_barrier = 0;
}

// Forward and reverse run the first thread that can; round takes turns; random starts anywhere.
int Engine::next_place() {
  int start = 0;
  if (schedule.kind == Schedule::kRound) start = (last_place + 1) % threads;
  if (schedule.kind == Schedule::kRandom) start = static_cast<int>(schedule.random() % threads);
  const void* found = memchr(states.data() + start, kReady, threads - start);
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

void Engine::run_block() {
  if (!idle) fibers.clear();  // after an error
  idle = false;
  begin_block();
  for (int chosen = next_place(); chosen >= 0; chosen = next_place()) {
    last_place = chosen;
    current = order[chosen];
    threadIdx = fiber().index;
    resume();
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
  if (std::any_of(states.begin(), states.end(), [](unsigned char s) { return s != kDone; })) fail(stuck());
  idle = true;
  check_guards();
}

void Engine::wait(State why, int line) {
  state_of(current) = why;
  fiber().line = line;
  if (why == kAtBarrier) {
    complete_barrier();
  } else {
    const int first = current / warpSize * warpSize;
    complete_exchange(first, fiber().mask);
  }
  yield();
}

void Engine::complete_barrier() {
  if (++at_barrier < threads) return;
  at_barrier = 0;
  for (int i = 0; i < threads; ++i)
    if (fibers[i]->line != fiber().line)
      fail("threads of one block meet at the barriers of lines " + std::to_string(fibers[i]->line) + " and " +
           std::to_string(fiber().line));
  std::fill(states.begin(), states.end(), static_cast<unsigned char>(kReady));
}

void Engine::complete_exchange(int first, unsigned mask) {
  unsigned ballot = 0;
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (first + lane >= threads) fail("a shuffle's mask names a lane that is not in the block" + where());
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

void Engine::check_guards() const {
  const auto poisoned = [](const unsigned char* begin, const unsigned char* end) {
    return std::all_of(begin, end, [](unsigned char byte) { return byte == 0xFF; });
  };
  if (!poisoned(shared.data(), shared_begin) || !poisoned(shared_begin + shared_bytes, shared.data() + shared.size()))
    fail("shared memory was written out of its " + std::to_string(shared_bytes) + " bytes");
}

std::string Engine::stuck() const {
  int done = 0, barrier = 0, exchange = 0, line = 0;
  for (int i = 0; i < threads; ++i) {
    const unsigned char state = states[place[i]];
    done += state == kDone, barrier += state == kAtBarrier, exchange += state == kAtExchange;
    if (state != kDone) line = fibers[i]->line;
  }
  return "deadlock: " + std::to_string(barrier) + " threads wait at a barrier and " + std::to_string(exchange) +
         " at a shuffle (one at line " + std::to_string(line) + ") for others, " + std::to_string(done) +
         " have left the kernel";
}

void check_launch(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) fail("invalid block size");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("invalid grid: no blocks");
  if (grid.x > INT32_MAX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) fail("invalid grid: too many blocks");
  if (shared_bytes > kMaxSharedBytes) fail("more than 48 KiB of shared memory");
}

}  // namespace

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  const std::lock_guard<std::mutex> lock(engine.one_launch);
  check_launch(grid, block, shared_bytes);
  gridDim = grid, blockDim = block;
  engine.threads = static_cast<int>(block.x * block.y * block.z);
  engine.shared_bytes = shared_bytes;
  engine.body = body, engine.context = context;
  std::vector<size_t> blocks(static_cast<size_t>(grid.x) * grid.y * grid.z);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = i;
  if (engine.schedule.kind == Schedule::kReverse) std::reverse(blocks.begin(), blocks.end());
  if (engine.schedule.kind == Schedule::kRandom) std::shuffle(blocks.begin(), blocks.end(), engine.schedule.random);
  for (const size_t id : blocks) {
    blockIdx = {static_cast<unsigned>(id % grid.x), static_cast<unsigned>(id / grid.x % grid.y),
                static_cast<unsigned>(id / grid.x / grid.y)};
    engine.run_block();
  }
}

void* shared_memory() {
  if (engine.shared_bytes == 0) fail("the kernel uses shared memory and its launch gave none");
  return engine.shared_begin;
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
