// The process groups of libtorch's c10d behind plain functions.
//
// Every function that can fail gives back a `Failure`, null if it did not fail. No exception leaves
// this file's functions. Handles belong to the caller, who gives each to its `_free` function once.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct PfcStore;
struct PfcGroup;
struct PfcWork;
struct PfcReducer;
struct PfcFailure;

// What a wait came to.
enum PfcWait : int32_t { PFC_DONE = 0, PFC_PENDING = 1 };

// How numbers are joined.
enum PfcReduce : int32_t { PFC_SUM = 0, PFC_MAX = 1 };

// 1 if time ran out, else 0.
int32_t pfc_failure_timed_out(const PfcFailure* failure);
// Ends in a zero byte and lives as long as the failure.
const char* pfc_failure_message(const PfcFailure* failure);
void pfc_failure_free(PfcFailure* failure);

// Turns libtorch's own log off but for fatal errors: what it says of failures is in the failures.
void pfc_silence();

// The store of torchrun's agent, a TCPStore.
struct PfcStoreSpec {
  const char* host;
  uint16_t port;
  int64_t timeout_ms;
  // Put before every key.
  const char* prefix;
};

PfcFailure* pfc_store_open(const PfcStoreSpec* spec, PfcStore** out);
PfcFailure* pfc_store_set(PfcStore* store, const char* key, const char* value);
// Waits for `key` to be set, and puts a copy of the value, for `pfc_text_free`, into `out`.
PfcFailure* pfc_store_get(PfcStore* store, const char* key, char** out);
void pfc_store_free(PfcStore* store);
void pfc_text_free(char* text);

// The values that ranks give each other before they are connected, kept by the caller. Any thread may
// call these. Keys and messages end in a zero byte. `receive` and `fail` copy what they are given.
struct PfcValues {
  void* context;
  void (*set)(void* context, const char* key, const uint8_t* value, size_t size);
  // Waits for a value and gives it to `receive`, or gives `fail` the reason why it does not come.
  void (*get)(
      void* context,
      const char* key,
      int64_t timeout_ms,
      void* target,
      void (*receive)(void* target, const uint8_t* value, size_t size),
      void (*fail)(void* target, const char* message));
  // 1 if there is a value.
  int32_t (*has)(void* context, const char* key);
  // Called once, after the last call of the others.
  void (*drop)(void* context);
};

struct PfcGroupSpec {
  int32_t rank;
  int32_t world;
  int64_t timeout_ms;
  // Names of network interfaces, separated by commas; null to choose by `hostname`.
  const char* interfaces;
  // The address that Gloo binds; null for that of the machine's name.
  const char* hostname;
  // Also open an NCCL backend for tensors on CUDA devices.
  int32_t with_nccl;
};

// Takes `values` over, also where it fails.
PfcFailure* pfc_group_open(const PfcValues* values, const PfcGroupSpec* spec, PfcGroup** out);
// Ends the operations under way on GPUs; any thread may call it at any time. Those of Gloo end with the
// connection.
PfcFailure* pfc_group_abort(PfcGroup* group);
// Shuts the backends down in good order.
void pfc_group_free(PfcGroup* group);

// Tensors are `at::Tensor*` and are held until the work is freed. Waits are the caller's business.
PfcFailure* pfc_all_reduce(PfcGroup* group, void* tensor, int32_t reduce, PfcWork** out);
PfcFailure* pfc_all_gather(PfcGroup* group, void* output, void* input, PfcWork** out);
PfcFailure* pfc_reduce_scatter(PfcGroup* group, void* output, void* input, PfcWork** out);
PfcFailure* pfc_broadcast(PfcGroup* group, void* tensor, int32_t root, PfcWork** out);
PfcFailure* pfc_barrier(PfcGroup* group, PfcWork** out);

// Waits for at most `timeout_ms`, or on a GPU only asks; a `PfcWait` goes into `state`.
PfcFailure* pfc_work_wait(PfcWork* work, int64_t timeout_ms, int32_t* state);
// Has what is handed to the current stream of the work's GPU from now on come after it. Of a work on a CPU, waits.
PfcFailure* pfc_work_order(PfcWork* work);
void pfc_work_free(PfcWork* work);

// How libtorch computes on GPUs from now on: the same bits in every run, and whether factors of f32
// products may be rounded to TF32.
PfcFailure* pfc_compute_set(int32_t deterministic, int32_t tf32);
// The CUDA stream, a `cudaStream_t`, that operations of this thread on CUDA device `index` go to, into
// `out`; null is the default one. Fails in a library without CUDA.
PfcFailure* pfc_current_stream(int32_t index, void** out);

// Sums gradients over the ranks in buckets while the backward pass runs.
PfcFailure* pfc_reducer_new(
    PfcGroup* group,
    void* const* parameters,
    size_t n_parameters,
    int64_t bucket_bytes,
    PfcReducer** out);
// Begins a backward pass whose gradients are exchanged.
PfcFailure* pfc_reducer_begin(PfcReducer* reducer);
// That pass, or a piece of it, from `objective`, one number.
PfcFailure* pfc_reducer_backward(PfcReducer* reducer, void* objective);
// Ends the pass after its last piece: puts 1 into `received`, one byte for each parameter, where the
// pass has given a gradient, else 0. Fails if all have one and a bucket was not summed all the same.
PfcFailure* pfc_reducer_finish(PfcReducer* reducer, uint8_t* received);
void pfc_reducer_free(PfcReducer* reducer);

// 1 if the library was built with NCCL and sees a GPU.
int32_t pfc_nccl_available();
// The identity of CUDA device `index`, the same for every process that sees the card, as text for
// `pfc_text_free`. Fails in a library without NCCL.
PfcFailure* pfc_device_id(int32_t index, char** out);
}
