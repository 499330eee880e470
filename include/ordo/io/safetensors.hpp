#pragma once
/// \file
/// Safetensors files: SafetensorsFile reads one, load_sharded() a checkpoint of one or several, SafetensorsWriter
/// writes, and LoadReport says how a file differs from a model.

#include "ordo/io/safetensors_file.hpp"
#include "ordo/io/safetensors_writer.hpp"
#include "ordo/io/tensor_source.hpp"
