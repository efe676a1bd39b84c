// Operations on lists of tensors as plain functions. On a GPU each is a few launches for all tensors.
//
// The lists of a call are as long as each other, and the tensors at one place of them are alike in shape,
// strides, kind and device: the caller sees to it, as libtorch's fused optimizers do not on a CPU.
//
// Failures are given back as in `operators.cpp`.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

#include "guarded.h"

extern "C" {

// What a list is combined with another, or with a number, by.
enum PfcListOp : int32_t {
  PFC_LIST_ZERO = 0,
  PFC_LIST_MULTIPLY = 1,
  PFC_LIST_DIVIDE = 2,
  PFC_LIST_COPY = 3,
  PFC_LIST_ADD = 4,
  PFC_LIST_LERP = 5,
};

// Changes `targets` in place: to zero, by `number`, by `sources`, or by both. `sources` may be null where an
// operation takes none.
char* pfc_lists_change(
    int32_t op,
    at::Tensor* const* targets,
    at::Tensor* const* sources,
    size_t n,
    double number);

// Puts the L2 norm of each tensor, a tensor of one number made by `new`, into `norms`.
char* pfc_lists_norms(at::Tensor* const* tensors, size_t n, at::Tensor** norms);

struct PfcSgd {
  double lr;
  double momentum;
  double weight_decay;
};

// A step of SGD with momentum, which is not 0.
char* pfc_lists_sgd(
    at::Tensor* const* weights,
    at::Tensor* const* gradients,
    at::Tensor* const* velocities,
    size_t n,
    const PfcSgd* sgd);

struct PfcAdamw {
  double lr;
  double beta1;
  double beta2;
  double weight_decay;
  double eps;
};

// A step of AdamW. `n_steps` is a tensor of one f32 on the weights' device: this step's number from 1.
char* pfc_lists_adamw(
    at::Tensor* const* weights,
    at::Tensor* const* gradients,
    at::Tensor* const* means,
    at::Tensor* const* squares,
    at::Tensor* n_steps,
    size_t n,
    const PfcAdamw* adamw);
}

namespace {

std::vector<at::Tensor> list_of(at::Tensor* const* tensors, size_t n) {
  std::vector<at::Tensor> list;
  list.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    list.push_back(*tensors[i]);
  }
  return list;
}

} // namespace

char* pfc_lists_change(
    int32_t op,
    at::Tensor* const* targets,
    at::Tensor* const* sources,
    size_t n,
    double number) {
  return pfc_autograd::guarded([&] {
    const auto target = list_of(targets, n);
    const auto source = sources ? list_of(sources, n) : std::vector<at::Tensor>();
    switch (op) {
      case PFC_LIST_ZERO:
        return at::_foreach_zero_(target);
      case PFC_LIST_MULTIPLY:
        return at::_foreach_mul_(target, number);
      case PFC_LIST_DIVIDE:
        return at::_foreach_div_(target, number);
      case PFC_LIST_COPY:
        return at::_foreach_copy_(target, source);
      case PFC_LIST_ADD:
        return at::_foreach_add_(target, source);
      case PFC_LIST_LERP:
        return at::_foreach_lerp_(target, source, number);
      default:
        TORCH_CHECK(false, "there is no operation ", op, " on lists of tensors");
    }
  });
}

char* pfc_lists_norms(at::Tensor* const* tensors, size_t n, at::Tensor** norms) {
  return pfc_autograd::guarded([&] {
    const auto found = at::_foreach_norm(list_of(tensors, n), 2);
    for (size_t i = 0; i < n; ++i) {
      norms[i] = new at::Tensor(found[i]);
    }
  });
}

char* pfc_lists_sgd(
    at::Tensor* const* weights,
    at::Tensor* const* gradients,
    at::Tensor* const* velocities,
    size_t n,
    const PfcSgd* sgd) {
  return pfc_autograd::guarded([&] {
    at::_fused_sgd_(
        list_of(weights, n),
        list_of(gradients, n),
        list_of(velocities, n),
        sgd->weight_decay,
        sgd->momentum,
        sgd->lr,
        /*dampening=*/0.0,
        /*nesterov=*/false,
        /*maximize=*/false,
        // A first velocity is 0, not the gradient: the same, as nothing of it is dampened.
        /*is_first_step=*/false);
  });
}

char* pfc_lists_adamw(
    at::Tensor* const* weights,
    at::Tensor* const* gradients,
    at::Tensor* const* means,
    at::Tensor* const* squares,
    at::Tensor* n_steps,
    size_t n,
    const PfcAdamw* adamw) {
  return pfc_autograd::guarded([&] {
    at::_fused_adamw_(
        list_of(weights, n),
        list_of(gradients, n),
        list_of(means, n),
        list_of(squares, n),
        /*max_exp_avg_sqs=*/std::vector<at::Tensor>(),
        // Only read, so that all may share one.
        std::vector<at::Tensor>(n, *n_steps),
        adamw->lr,
        adamw->beta1,
        adamw->beta2,
        adamw->weight_decay,
        adamw->eps,
        /*amsgrad=*/false,
        /*maximize=*/false);
  });
}
