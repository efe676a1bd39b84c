// How functions of the bridge fail.
#pragma once

#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

namespace pfc_autograd {

// Runs `body` and gives back what it threw, without the stack that libtorch appends.
template <typename Body>
char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    // Not a handler of its own: linkers keep the types that handlers name, and with them all of libtorch, even
    // in programs that never come here.
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    return strdup(of_torch ? of_torch->what_without_backtrace() : error.what());
  } catch (...) {
    return strdup("an exception of an unknown type");
  }
}

} // namespace pfc_autograd
