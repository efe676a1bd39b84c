#include <atomic>

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "failure.h"
#include "handles.h"

using pfc::guarded;

namespace {

// Prints every warning but one that speaks of speed where there is nothing to gain: the kernels of
// 1x1 convolutions have several descriptions of one layout.
class AllButStrides : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override {
    if (warning.msg().find("Grad strides do not match bucket view strides") == std::string::npos) {
      c10::WarningHandler::process(warning);
    }
  }
};

// Plain sums. Without a hook the reducer means them, and it multiplies by 1/W in its first pass where
// it divides by W in the later ones: a resumed run would differ in the last bits.
class SumHook : public c10d::CppCommHookInterface<c10::intrusive_ptr<c10d::ProcessGroup>> {
 public:
  explicit SumHook(const c10::intrusive_ptr<c10d::ProcessGroup>& group)
      : CppCommHookInterface(group) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> tensors{bucket.getBufferRef()};
    return state_->allreduce(tensors)->getFuture();
  }
};

// Which parameters have got a gradient in this pass, one flag each.
using Received = std::shared_ptr<std::vector<std::atomic<bool>>>;

// Sets a parameter's flag once its gradient has been added.
class NoteReceived : public torch::autograd::FunctionPostHook {
 public:
  NoteReceived(Received received, size_t index) : received_(std::move(received)), index_(index) {}

  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& outputs,
      const torch::autograd::variable_list& /*inputs*/) override {
    (*received_)[index_] = true;
    return outputs;
  }

 private:
  Received received_;
  size_t index_;
};

} // namespace

// `Reducer` only checks that a pass has reached every parameter before it rebuilds its buckets, which
// happens once. A pass that leaves one out would end with some buckets not summed, and not waited for.
class CheckedReducer : public c10d::Reducer {
 public:
  using Reducer::Reducer;

  // Begins to note which parameters get gradients. Called once.
  void observe() {
    received_ = std::make_shared<std::vector<std::atomic<bool>>>(grad_accumulators_.size());
    for (size_t i = 0; i < grad_accumulators_.size(); i++) {
      grad_accumulators_[i]->add_post_hook(std::make_unique<NoteReceived>(received_, i));
    }
  }

  void forget() {
    for (auto& flag : *received_) {
      flag = false;
    }
  }

  bool has_received(size_t index) const {
    return (*received_)[index];
  }

  // Whether every bucket of the last pass was summed and waited for.
  bool is_finished() {
    std::lock_guard<std::mutex> lock(mutex_);
    return !require_finalize_;
  }

 private:
  Received received_;
};

struct PfcReducer {
  // The reducer uses it until it is gone.
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<CheckedReducer> reducer;
  size_t n_parameters;
};

PfcFailure* pfc_reducer_new(
    PfcGroup* group,
    void* const* parameters,
    size_t n_parameters,
    int64_t bucket_bytes,
    PfcReducer** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors;
    tensors.reserve(n_parameters);
    // The last layer's gradient is the first to be ready.
    for (size_t i = n_parameters; i-- > 0;) {
      tensors.push_back(*static_cast<at::Tensor*>(parameters[i]));
    }
    const std::vector<bool> sparse(tensors.size(), false);
    const auto first = std::min<int64_t>(bucket_bytes, c10d::kDefaultFirstBucketBytes);
    const std::vector<size_t> sizes{static_cast<size_t>(first), static_cast<size_t>(bucket_bytes)};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(tensors, sizes, sparse));
    auto reducer = std::make_unique<CheckedReducer>(
        tensors,
        buckets,
        group->group,
        sparse,
        bucket_bytes,
        /*find_unused_parameters=*/false,
        /*gradient_as_bucket_view=*/true,
        std::unordered_map<size_t, std::string>{},
        first,
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        std::vector<int64_t>{});
    // The reducer regroups its buckets after the first pass by the order in which gradients came. A
    // sum over ranks depends on its place in a bucket, so a resumed run, whose first pass is another
    // one, would differ in the last bits. Regroup now, by the order given.
    reducer->push_rebuilt_params_for_all_indices();
    reducer->rebuild_buckets();
    reducer->register_comm_hook(std::make_unique<SumHook>(group->group));
    reducer->observe();
    *out = new PfcReducer{group->group, std::move(reducer), n_parameters};
  });
}

PfcFailure* pfc_reducer_begin(PfcReducer* reducer) {
  // The outputs would only be searched for parameters that they do not depend on.
  return guarded([&] {
    reducer->reducer->forget();
    reducer->reducer->prepare_for_backward({});
  });
}

PfcFailure* pfc_reducer_backward(PfcReducer* reducer, void* objective) {
  (void)reducer;
  return guarded([&] {
    AllButStrides handler;
    c10::WarningUtils::WarningHandlerGuard guard(&handler);
    static_cast<at::Tensor*>(objective)->backward();
  });
}

PfcFailure* pfc_reducer_finish(PfcReducer* reducer, uint8_t* received) {
  return guarded([&] {
    bool all = true;
    for (size_t i = 0; i < reducer->n_parameters; i++) {
      // The reducer has them in reverse order.
      received[i] = reducer->reducer->has_received(reducer->n_parameters - 1 - i) ? 1 : 0;
      all = all && received[i] != 0;
    }
    TORCH_CHECK(!all || reducer->reducer->is_finished(), "a bucket of gradients was not summed");
  });
}

void pfc_reducer_free(PfcReducer* reducer) {
  if (PfcFailure* failure = guarded([&] { delete reducer; })) {
    pfc_failure_free(failure);
  }
}
