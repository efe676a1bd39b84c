#include <cstdlib>

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "failure.h"

PfcFailure* pfc_compute_set(int32_t deterministic, int32_t tf32) {
  return pfc::guarded([=] {
    auto& context = at::globalContext();
    if (deterministic) {
      // cuBLAS looks at it when it is first used; what the user has set stays.
      setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
      // Memory is written before it is read everywhere here: filling it first would only cost time.
      context.setDeterministicFillUninitializedMemory(false);
    }
    context.setDeterministicAlgorithms(deterministic, false);
    context.setDeterministicCuDNN(deterministic);
    // Batches all have one shape, for which cuDNN finds its fastest kernels in the first step; which
    // ones it finds differs from run to run.
    context.setBenchmarkCuDNN(!deterministic);
    context.setAllowTF32CuBLAS(tf32);
    context.setAllowTF32CuDNN(tf32);
  });
}

PfcFailure* pfc_current_stream(int32_t index, void** out) {
  return pfc::guarded([=] {
    constexpr auto cuda = c10::DeviceType::CUDA;
    TORCH_CHECK(at::globalContext().hasCUDA(), "this libtorch has no CUDA");
    const c10::Device device(cuda, static_cast<c10::DeviceIndex>(index));
    *out = c10::impl::VirtualGuardImpl(cuda).getStream(device).native_handle();
  });
}
