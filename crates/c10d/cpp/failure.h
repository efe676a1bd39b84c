// From exceptions to values.
#pragma once

#include <exception>
#include <string>

#include <c10/util/Exception.h>

#include "bridge.h"

struct PfcFailure {
  bool timed_out;
  std::string message;
};

namespace pfc {

inline PfcFailure* failure(const std::string& message) noexcept {
  try {
    const bool timed_out = message.find("imed out") != std::string::npos ||
        message.find("imeout") != std::string::npos;
    return new PfcFailure{timed_out, message};
  } catch (...) {
    // No memory for a message: the caller sees a failure all the same.
    static PfcFailure out_of_memory{false, "out of memory"};
    return &out_of_memory;
  }
}

// Runs `body` and gives back what it threw, without the stack that libtorch appends.
template <typename Body>
PfcFailure* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    // Not a handler of its own: linkers keep the types that handlers name, and with them all of libtorch, even
    // in programs that never come here.
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    return failure(of_torch ? of_torch->what_without_backtrace() : error.what());
  } catch (...) {
    return failure("an exception of an unknown type");
  }
}

} // namespace pfc
