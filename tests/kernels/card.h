// A card on a CPU, as far as the head's kernels can tell: a block is as many real threads as on the card,
// which share memory, meet at barriers and exchange values within warps. Two blocks run side by side and
// wait for each other nowhere, so that ThreadSanitizer sees what two threads do to the same number, within
// a block or in two of them. It is put before the source of the kernels by tests/kernels/build.py.
//
// Stricter than a card: threads that wait at different barriers, or leave while others wait, end the process.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace card {

constexpr unsigned WARP = 32;
// Blocks that run side by side.
constexpr unsigned SIDE_BY_SIDE = 2;
// What every card grants.
constexpr unsigned THREADS_MAX = 1024, GRID_X_MAX = 2147483647, GRID_Y_MAX = 65535, SHARED_MAX = 48 << 10;

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

[[noreturn]] inline void fail(const char* what, int line) {
  std::fprintf(stderr, "card: %s, line %d of the kernels\n", what, line);
  std::fflush(stderr);
  std::_Exit(70);
}

// Where a number of threads wait for each other.
class Meeting {
 public:
  explicit Meeting(unsigned n_threads) : n_threads_(n_threads) {}

  void meet(int line) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (n_left_ > 0) fail("a thread has left the block that others wait for", line);
    if (n_waiting_ > 0 && line_ != line) fail("threads of a block wait at different barriers", line);
    line_ = line;
    if (++n_waiting_ == n_threads_) {
      n_waiting_ = 0;
      ++round_;
      everybody_.notify_all();
      return;
    }
    const auto round = round_;
    everybody_.wait(lock, [&] { return round_ != round; });
  }

  void leave() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (n_waiting_ > 0) fail("a thread leaves a block while others wait", line_);
    ++n_left_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable everybody_;
  unsigned n_threads_, n_waiting_ = 0, n_left_ = 0;
  int line_ = 0;
  unsigned long long round_ = 0;
};

// What the threads of a block share. Its memory begins as what no kernel may take for a number, and is
// followed by nothing that belongs to it.
struct Block {
  Block(unsigned n_threads, unsigned shared_bytes)
      : all(n_threads), shared(new unsigned char[shared_bytes]), exchanged(n_threads) {
    std::memset(shared.get(), 0xff, shared_bytes);
    for (unsigned first = 0; first < n_threads; first += WARP) warps.emplace_back(std::min(WARP, n_threads - first));
  }

  Meeting all;
  std::deque<Meeting> warps;
  std::unique_ptr<unsigned char[]> shared;
  std::vector<uint64_t> exchanged;
};

inline thread_local Block* block = nullptr;
inline thread_local Dim thread_idx, block_idx, block_dim, grid_dim;

inline float* shared_floats() {
  return reinterpret_cast<float*>(block->shared.get());
}

// The value of the lane that `lane_of` names; that of this lane where there is no such one.
template <typename T, typename F>
T exchange(T value, F lane_of, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const unsigned warp = thread_idx.x / WARP, lane = thread_idx.x % WARP;
  std::memcpy(&block->exchanged[thread_idx.x], &value, sizeof value);
  block->warps[warp].meet(line);
  const unsigned from = lane_of(lane), at = warp * WARP + from;
  T found = value;
  if (from < WARP && at < block_dim.x) std::memcpy(&found, &block->exchanged[at], sizeof found);
  block->warps[warp].meet(line);
  return found;
}

// Runs a kernel; `arguments` point at one each, as those of `cuLaunchKernel` do. Waits for its end.
template <typename... P, std::size_t... I>
void run(void (*kernel)(P...), Dim grid, Dim threads, unsigned shared_bytes, void** arguments, std::index_sequence<I...>) {
  std::deque<Block> blocks;
  const std::size_t n_blocks = std::size_t{grid.x} * grid.y;
  for (std::size_t b = 0; b < n_blocks; b++) blocks.emplace_back(threads.x, shared_bytes);
  const auto work = [&](unsigned first, unsigned thread) {
    thread_idx = {thread, 0, 0};
    block_dim = threads;
    grid_dim = grid;
    for (std::size_t b = first; b < n_blocks; b += SIDE_BY_SIDE) {
      block = &blocks[b];
      block_idx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x), 0};
      kernel(*static_cast<P*>(arguments[I])...);
      block->all.leave();
      block->warps[thread / WARP].leave();
    }
  };
  std::vector<std::thread> running;
  for (unsigned first = 0; first < SIDE_BY_SIDE; first++) {
    for (unsigned thread = 0; thread < threads.x; thread++) running.emplace_back(work, first, thread);
  }
  for (auto& thread : running) thread.join();
}

template <typename... P>
void launch(void (*kernel)(P...), Dim grid, Dim threads, unsigned shared_bytes, void** arguments) {
  run(kernel, grid, threads, shared_bytes, arguments, std::index_sequence_for<P...>{});
}

// A kernel by its name.
struct Kernel {
  void (*launch)(Dim grid, Dim threads, unsigned shared_bytes, void** arguments);
};

inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

// 0; 1 for a launch that every card refuses.
inline int launch_if_granted(const Kernel& kernel, Dim grid, Dim threads, unsigned shared_bytes, void** arguments) {
  const bool refused = grid.x < 1 || grid.y < 1 || grid.z != 1 || grid.x > GRID_X_MAX || grid.y > GRID_Y_MAX ||
      threads.x < 1 || threads.x > THREADS_MAX || threads.y != 1 || threads.z != 1 || shared_bytes > SHARED_MAX;
  if (refused) return 1;
  kernel.launch(grid, threads, shared_bytes, arguments);
  return 0;
}

} // namespace card

#define CARD_KERNEL(name)                                                                            \
  static const bool card_has_##name = [] {                                                           \
    card::kernels()[#name] = {[](card::Dim grid, card::Dim threads, unsigned shared_bytes, void** arguments) { \
      card::launch(name, grid, threads, shared_bytes, arguments);                                    \
    }};                                                                                              \
    return true;                                                                                     \
  }();

// What the compiler of the card brings along.
using std::max;
using std::min;
// Of half turns. As macros, since newer C libraries have functions of these names.
#define cospi(half_turns) std::cos(3.14159265358979323846 * (half_turns))
#define sinpi(half_turns) std::sin(3.14159265358979323846 * (half_turns))
#define threadIdx card::thread_idx
#define blockIdx card::block_idx
#define blockDim card::block_dim
#define gridDim card::grid_dim
#define __syncthreads() card::block->all.meet(__LINE__)
#define __syncwarp(...) card::block->warps[threadIdx.x / card::WARP].meet(__LINE__)
#define __shfl_xor_sync(mask, value, by) card::exchange((value), [&](unsigned lane) { return lane ^ (by); }, __LINE__)
#define __shfl_down_sync(mask, value, by) card::exchange((value), [&](unsigned lane) { return lane + (by); }, __LINE__)
#define __shfl_sync(mask, value, from) card::exchange((value), [&](unsigned) { return unsigned(from); }, __LINE__)

#define __popc __builtin_popcount
#define __ffs __builtin_ffs

static inline unsigned atomicOr(unsigned* at, unsigned bits) {
  return __atomic_fetch_or(at, bits, __ATOMIC_RELAXED);
}
static inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
