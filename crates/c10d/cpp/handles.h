// What the handles of bridge.h hold.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "bridge.h"

struct PfcStore {
  c10::intrusive_ptr<c10d::Store> store;
};

struct PfcGroup {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

struct PfcWork {
  c10::intrusive_ptr<c10d::Work> work;
  // Whether a GPU does it.
  bool on_device;
};
