// Runs a launch on the host: block by block, every thread of a block a fiber.
//
// Threads run one at a time, each until it reaches a barrier or a warp's exchange, in an order that
// changes from pass to pass, and between two barriers some warps wait until the others can go no
// further. A result that leans on an order that CUDA does not promise, for want of a barrier,
// therefore comes out wrong; races.cpp finds it even where the result is right. Shared memory
// starts as NaN in every block and has a guard behind it; a barrier or exchange that not all
// threads reach ends the launch with an error, and so does a misaligned access (the kernels are
// compiled with -fsanitize=alignment) and one beyond its memory (bounds.cpp).
#include <ucontext.h>

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "bounds.h"
#include "cuda_runtime.h"
#include "races.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fastmtl {
inline namespace cuda {
alignas(4096) unsigned char shared_memory[1 << 18];  // whole pages, for races.cpp
}
}  // namespace fastmtl

namespace host_shim {
namespace {

constexpr unsigned warp_size = 32, most_threads = 1024;
constexpr std::size_t default_shared = 48 << 10, most_shared = 64 << 10, guard_bytes = 4096;
constexpr std::size_t stack_bytes = 64 << 10;
constexpr unsigned char guard = 0xa5, poison = 0xff;

// Two devices, of which the first is current for whoever has not said otherwise, and the second has
// the one stream there is; tests/cuda/host.py knows both.
constexpr int devices = 2, device_of_stream = 1;
const cudaStream_t only_stream = reinterpret_cast<cudaStream_t>(0x57ea);
thread_local int current_device = 0;

enum class State { ready, at_barrier, at_exchange, done };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
  unsigned mask;
  alignas(16) unsigned char given[16], seen[16];
  std::vector<Copy> copies;
};

struct Device {
  std::mutex mutex;
  std::mt19937 random{1};
  std::vector<Thread> threads = std::vector<Thread>(most_threads);
  ucontext_t scheduler;
  Thread* running = nullptr;
  const std::function<void()>* body = nullptr;
  cudaError_t error = cudaSuccess;
  std::map<const void*, std::size_t> shared_limit;
};

Device& device() {
  static Device device;
  return device;
}

void yield(State state) {
  device().running->state = state;
  swapcontext(&device().running->context, &device().scheduler);
}

void run_thread() {
  (*device().body)();
  yield(State::done);
}

// Lets the lanes of an exchange go on once all of them have arrived.
bool release_warp(Thread* warp) {
  bool released = false;
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    if (warp[lane].state != State::at_exchange) continue;
    const unsigned mask = warp[lane].mask;
    bool complete = mask >> lane & 1;
    for (unsigned other = 0; other < warp_size; ++other)
      if (mask >> other & 1)
        complete &= warp[other].state == State::at_exchange && warp[other].mask == mask;
    if (!complete) continue;
    for (unsigned other = 0; other < warp_size; ++other) {
      if (!(mask >> other & 1)) continue;
      memcpy(warp[other].seen, warp[other].given, sizeof(warp[other].seen));
      warp[other].state = State::ready;
    }
    if (mask == ~0u) races::meet_warp(unsigned(warp - device().threads.data()) / warp_size);
    released = true;
  }
  return released;
}

bool release_barrier(unsigned count) {
  bool waiting = false;
  for (unsigned t = 0; t < count; ++t) {
    const State state = device().threads[t].state;
    if (state == State::ready || state == State::at_exchange) return false;
    waiting |= state == State::at_barrier;
  }
  for (unsigned t = 0; t < count; ++t)
    if (device().threads[t].state == State::at_barrier) device().threads[t].state = State::ready;
  races::meet_block();
  return waiting;
}

// Runs the threads that are ready, of those warps whose bit is set.
bool resume(const std::vector<unsigned>& order, unsigned warps) {
  Device& d = device();
  bool moved = false;
  for (const unsigned t : order) {
    if (d.threads[t].state != State::ready || !(warps >> t / warp_size & 1)) continue;
    moved = true;
    d.running = &d.threads[t];
    threadIdx = dim3(t);
    races::resume(t, d.running->stack.get(), stack_bytes);
    swapcontext(&d.scheduler, &d.threads[t].context);
    races::suspend();
  }
  return moved;
}

void run_block(unsigned count) {
  Device& d = device();
  for (unsigned t = 0; t < count; ++t) {
    Thread& thread = d.threads[t];
    if (!thread.stack) thread.stack.reset(new char[stack_bytes]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = stack_bytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
    thread.state = State::ready;
    thread.copies.clear();
  }
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  unsigned late = d.random();  // a bit for every warp
  while (true) {
    const unsigned kind = d.random() % 3;
    if (kind == 0) std::reverse(order.begin(), order.end());
    if (kind == 1) std::shuffle(order.begin(), order.end(), d.random);
    bool moved = resume(order, ~late), alive = false;
    for (unsigned t = 0; t < count; ++t) alive |= d.threads[t].state != State::done;
    if (!alive || d.error != cudaSuccess) return;
    for (unsigned t = 0; t < count; t += warp_size) moved |= release_warp(&d.threads[t]);
    if (release_barrier(count)) {
      moved = true;
      late = d.random();
    }
    if (!moved && !resume(order, late))
      return fail(cudaErrorLaunchFailure, "threads wait for others that do not come");
  }
}

}  // namespace

void fail(cudaError_t error, const char* what) {
  if (device().error == cudaSuccess)
    std::fprintf(stderr, "host_shim: %s in block (%u, %u)\n", what, blockIdx.x, blockIdx.y);
  device().error = error;
}

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel,
                const std::function<void()>& thread) {
  Device& d = device();
  const std::lock_guard<std::mutex> lock(d.mutex);
  // A launch goes to a stream of the current device.
  if (config.stream != only_stream || current_device != device_of_stream)
    return cudaErrorInvalidResourceHandle;
  const auto limit = d.shared_limit.find(kernel);
  const std::size_t bytes = config.dynamicSmemBytes;
  const unsigned count = config.blockDim.x;
  if (count == 0 || count > most_threads || count % warp_size != 0 || config.gridDim.x == 0 ||
      config.gridDim.y == 0 || config.gridDim.y > 65535 ||
      bytes > (limit == d.shared_limit.end() ? default_shared : limit->second))
    return cudaErrorInvalidConfiguration;
  d.error = cudaSuccess;
  d.body = &thread;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  bounds::begin_launch(fastmtl::shared_memory, sizeof(fastmtl::shared_memory), bytes);
  races::begin_launch(fastmtl::shared_memory, sizeof(fastmtl::shared_memory));
  std::vector<unsigned> blocks(std::size_t(gridDim.x) * gridDim.y);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), d.random);
  for (const unsigned block : blocks) {
    blockIdx = dim3(block % gridDim.x, block / gridDim.x);
    unsigned char* memory = fastmtl::shared_memory;
    std::fill_n(memory, bytes, poison);
    std::fill_n(memory + bytes, guard_bytes, guard);
    races::begin_block(block);
    run_block(count);
    if (races::found()) d.error = cudaErrorLaunchFailure;
    const bool intact = std::all_of(memory + bytes, memory + bytes + guard_bytes,
                                    [](unsigned char byte) { return byte == guard; });
    if (!intact) fail(cudaErrorLaunchFailure, "a write behind shared memory");
    if (d.error != cudaSuccess) break;
  }
  return d.error;
}

void barrier() { yield(State::at_barrier); }

void meet(unsigned mask, const void* value, std::size_t bytes) {
  Thread& thread = *device().running;
  thread.mask = mask;
  if (bytes) memcpy(thread.given, value, bytes);
  yield(State::at_exchange);
}

unsigned lane() { return threadIdx.x % warp_size; }

void put(const Copy& copy) { device().running->copies.push_back(copy); }

bool take(Copy* copy) {
  std::vector<Copy>& left = device().running->copies;
  if (left.empty()) return false;
  *copy = left.back();
  left.pop_back();
  return true;
}

const void* exchanged(unsigned lane) { return (device().running - host_shim::lane() + lane)->seen; }

}  // namespace host_shim

cudaError_t cudaGetDevice(int* device) {
  *device = host_shim::current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= host_shim::devices) return cudaErrorInvalidDevice;
  host_shim::current_device = device;
  return cudaSuccess;
}

// A device small enough that small tensors fill it several times.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 3 : int(host_shim::most_shared);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (std::size_t(value) > host_shim::most_shared) return cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> lock(host_shim::device().mutex);
  host_shim::device().shared_limit[kernel] = std::size_t(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorMisalignedAddress:
      return "misaligned address";
    default:
      return "unspecified launch failure";
  }
}

// Called where -fsanitize=alignment finds a misaligned access.
extern "C" void __ubsan_handle_type_mismatch_v1(void*, void*) {
  host_shim::fail(cudaErrorMisalignedAddress, "a misaligned access");
}
