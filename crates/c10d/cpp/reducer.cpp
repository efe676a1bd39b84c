#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "failure.h"
#include "handles.h"

using pfc::guarded;

struct PfcReducer {
  // The reducer uses it until it is gone.
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<c10d::Reducer> reducer;
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
    auto reducer = std::make_unique<c10d::Reducer>(
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
    *out = new PfcReducer{group->group, std::move(reducer)};
  });
}

PfcFailure* pfc_reducer_prepare(PfcReducer* reducer, void* output) {
  return guarded([&] {
    reducer->reducer->prepare_for_forward();
    reducer->reducer->prepare_for_backward({*static_cast<at::Tensor*>(output)});
  });
}

void pfc_reducer_free(PfcReducer* reducer) {
  if (PfcFailure* failure = guarded([&] { delete reducer; })) {
    pfc_failure_free(failure);
  }
}
