// What csrc/cuda/bindings needs of the emulator.
#pragma once
#include "emulation/runtime.h"
