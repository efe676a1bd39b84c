// Compiled as one: each file alone would spend seconds on the same headers of libtorch.
#include "lists.cpp"
#include "operators.cpp"
#include "packages.cpp"
