// Compiled as one: each file alone would spend ten seconds on the same headers of libtorch.
#include "compute.cpp"
#include "group.cpp"
#include "reducer.cpp"
