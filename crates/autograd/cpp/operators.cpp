// Operators whose gradient the caller computes, and loops on libtorch's threads, as plain functions.
//
// No exception leaves them: a function gives back null, or the text of an exception, which the caller
// gives to `pfc_autograd_text_free`.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#include <ATen/Context.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "guarded.h"

extern "C" {

// The gradient of an operator with one output, kept by the caller.
struct PfcGradient {
  void* context;
  // Called at most once, with the gradient of the objective by the output. Puts a tensor made by
  // `new`, which may be undefined, into each of the `n_inputs` places of `grad_inputs`, or gives back
  // a text made by `malloc`. `is_last` is 1 if nothing else holds the tensor or its memory.
  char* (*apply)(
      void* context,
      at::Tensor* grad_output,
      int32_t is_last,
      at::Tensor** grad_inputs,
      size_t n_inputs);
  // Called once, after `apply` if that is called at all.
  void (*drop)(void* context);
};

// Makes `output`, which was computed unrecorded, a function of the `inputs` whose gradient is
// `gradient`. Takes `gradient` over, also where it fails.
char* pfc_autograd_record(
    at::Tensor* output,
    at::Tensor* const* inputs,
    size_t n_inputs,
    const PfcGradient* gradient);

// Calls `body` for parts of `0..n`, each number in one of them, on libtorch's threads, and waits.
char* pfc_autograd_parallel_for(
    int64_t n,
    void* context,
    void (*body)(void* context, int64_t begin, int64_t end));

// Whether GPUs may round the factors of f32 products and convolutions to TF32 from now on.
char* pfc_autograd_allow_tf32(int32_t is_allowed);

void pfc_autograd_text_free(char* text) {
  std::free(text);
}
}

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;
using pfc_autograd::guarded;

class Operator : public Node {
 public:
  explicit Operator(const PfcGradient& gradient) : gradient_(gradient) {}
  ~Operator() override {
    release();
  }

  std::string name() const override {
    return "PfcOperator";
  }

  void release_variables() override {
    release();
  }

 protected:
  variable_list apply(variable_list&& grads) override {
    const size_t n_inputs = num_outputs();
    variable_list grad_inputs(n_inputs);
    at::Tensor grad = std::move(grads.at(0));
    if (!grad.defined()) {
      return grad_inputs;
    }
    TORCH_CHECK(!is_applied_, "the gradient of an operator is computed only once");
    is_applied_ = true;
    const bool is_last = grad.use_count() == 1 && grad.storage().use_count() == 1;
    std::vector<at::Tensor*> found(n_inputs, nullptr);
    char* failure = gradient_.apply(gradient_.context, &grad, is_last, found.data(), n_inputs);
    for (size_t i = 0; i < n_inputs; ++i) {
      if (found[i] != nullptr) {
        grad_inputs[i] = std::move(*found[i]);
        delete found[i];
      }
    }
    if (failure != nullptr) {
      const std::string message(failure);
      std::free(failure);
      throw std::runtime_error(message);
    }
    return grad_inputs;
  }

 private:
  void release() {
    if (!is_released_) {
      is_applied_ = true;
      is_released_ = true;
      gradient_.drop(gradient_.context);
    }
  }

  PfcGradient gradient_;
  // A pass that keeps the graph for another does not release it.
  bool is_applied_ = false;
  bool is_released_ = false;
};

} // namespace

char* pfc_autograd_record(
    at::Tensor* output,
    at::Tensor* const* inputs,
    size_t n_inputs,
    const PfcGradient* gradient) {
  return guarded([&] {
    // From here on the node owns the gradient.
    std::shared_ptr<Operator> node(new Operator(*gradient), torch::autograd::deleteNode);
    variable_list variables;
    bool requires_grad = false;
    for (size_t i = 0; i < n_inputs; ++i) {
      variables.push_back(*inputs[i]);
      requires_grad |= inputs[i]->requires_grad();
    }
    if (requires_grad && at::GradMode::is_enabled()) {
      node->set_next_edges(torch::autograd::collect_next_edges(variables));
      torch::autograd::set_history(*output, node);
    }
  });
}

char* pfc_autograd_parallel_for(
    int64_t n,
    void* context,
    void (*body)(void* context, int64_t begin, int64_t end)) {
  return guarded([&] {
    // `at::parallel_for` itself is compiled where it is used, for whichever threads that compiler
    // knows. An iterator over bytes runs in the library, on the threads of all its operators; the
    // bytes are never touched, and tell by their addresses which part of the range is meant.
    const at::Tensor places = at::empty({n}, at::kByte);
    const char* first = static_cast<const char*>(places.const_data_ptr());
    auto iterator = at::TensorIteratorConfig().add_const_input(places).build();
    iterator.for_each(
        [&](char** data, const int64_t*, int64_t size) {
          const int64_t begin = data[0] - first;
          body(context, begin, begin + size);
        },
        1);
  });
}

char* pfc_autograd_allow_tf32(int32_t is_allowed) {
  return guarded([=] {
    at::globalContext().setAllowTF32CuBLAS(is_allowed != 0);
    at::globalContext().setAllowTF32CuDNN(is_allowed != 0);
  });
}
