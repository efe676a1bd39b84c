// Networks that were compiled ahead of time, as plain functions.
//
// A package holds a shared library, which runs as soon as it is loaded. It checks nothing of what it is given: the
// caller sees to number, shapes, strides, kinds and device of the inputs. It finds libtorch among what the program
// was linked with.
//
// Failures are given back as in `operators.cpp`.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "guarded.h"

extern "C" {

struct PfcPackage;

// Loads the package in the file `path`, for the GPU `device` or, below 0, for whichever it was compiled for.
char* pfc_package_load(const char* path, int32_t device, PfcPackage** package);

// Gives the outputs for `inputs`, `n_outputs` tensors made by `new`, of which one that a package leaves out is
// undefined. It is an error if the package has another number of them.
char* pfc_package_run(
    PfcPackage* package,
    at::Tensor* const* inputs,
    size_t n_inputs,
    at::Tensor** outputs,
    size_t n_outputs);

void pfc_package_free(PfcPackage* package);
}

struct PfcPackage {
  torch::inductor::AOTIModelPackageLoader loader;
};

char* pfc_package_load(const char* path, int32_t device, PfcPackage** package) {
  return pfc_autograd::guarded([&] {
    *package = new PfcPackage{torch::inductor::AOTIModelPackageLoader(
        std::string(path),
        /*model_name=*/"model",
        /*run_single_threaded=*/false,
        /*num_runners=*/1,
        static_cast<c10::DeviceIndex>(device))};
  });
}

char* pfc_package_run(
    PfcPackage* package,
    at::Tensor* const* inputs,
    size_t n_inputs,
    at::Tensor** outputs,
    size_t n_outputs) {
  return pfc_autograd::guarded([&] {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> given;
    given.reserve(n_inputs);
    for (size_t i = 0; i < n_inputs; ++i) {
      given.push_back(inputs[i]->detach());
    }
    // On the current stream of the device.
    auto found = package->loader.boxed_run(std::move(given));
    TORCH_CHECK(
        found.size() == n_outputs,
        "the package gives ",
        found.size(),
        " tensors, not ",
        n_outputs);
    for (size_t i = 0; i < n_outputs; ++i) {
      outputs[i] = new at::Tensor(std::move(found[i]));
    }
  });
}

void pfc_package_free(PfcPackage* package) {
  delete package;
}
