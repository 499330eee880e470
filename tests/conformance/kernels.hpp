#pragma once
// The kernels that the layers of most families reach, compiled once for each scalar type (kernels_float.cpp, kernels_double.cpp) and not in
// every source file: they are half of what such a file costs.

#include "ordo/ops/attention.hpp"
#include "ordo/ops/matmul.hpp"
#include "ordo/ops/recurrent.hpp"
#include "ordo/ops/selective_scan.hpp"
#include "ordo/ops/short_conv.hpp"

namespace ordo::kernels {

extern template void gemm<float>(const GemmArgs<float>&);
extern template void gemm_small<float>(const GemmArgs<float>&);
extern template void attention_forward<float>(const AttentionInputs<float>&, const AttentionOutputs<float>&, const StandardMask<float>&, const StandardScore<float>&);
extern template void attention_backward<float>(const AttentionInputs<float>&, const AttentionGradients<float>&, const StandardMask<float>&, const StandardScore<float>&);
extern template void selective_scan_forward<float>(const SelectiveScan<float>&, Rows<float>, float*, float*);
extern template void selective_scan_backward<float>(const SelectiveScan<float>&, Rows<const float>, const float*, const SelectiveScanGradients<float>&, const float*);
extern template void short_conv_forward<float>(const ShortConvolution<float>&, Rows<float>, float*);
extern template void short_conv_backward<float>(const ShortConvolution<float>&, Rows<const float>, const float*, const ShortConvolutionGradients<float>&);
extern template void recurrent_forward<float>(const Recurrence<float, LstmCell<float>>&, float*, float*, float*, const RecurrenceTape<float>&);
extern template void recurrent_backward<float>(const Recurrence<float, LstmCell<float>>&, const RecurrenceTape<float>&, const float*, const float*, const float*, const float*, const RecurrenceGradients<float>&);
extern template void recurrent_forward<float>(const Recurrence<float, GruCell<float>>&, float*, float*, float*, const RecurrenceTape<float>&);
extern template void recurrent_backward<float>(const Recurrence<float, GruCell<float>>&, const RecurrenceTape<float>&, const float*, const float*, const float*, const float*, const RecurrenceGradients<float>&);
extern template void activate<float>(const ActivationParameters&, const float*, float*, Index);
extern template void activate_first<float>(const ActivationParameters&, const float*, const float*, float*, Index);
extern template void activate_second<float>(const ActivationParameters&, const float*, const float*, float*, Index);

extern template void gemm<double>(const GemmArgs<double>&);
extern template void gemm_small<double>(const GemmArgs<double>&);
extern template void attention_forward<double>(const AttentionInputs<double>&, const AttentionOutputs<double>&, const StandardMask<double>&, const StandardScore<double>&);
extern template void attention_backward<double>(const AttentionInputs<double>&, const AttentionGradients<double>&, const StandardMask<double>&, const StandardScore<double>&);
extern template void selective_scan_forward<double>(const SelectiveScan<double>&, Rows<double>, double*, double*);
extern template void selective_scan_backward<double>(const SelectiveScan<double>&, Rows<const double>, const double*, const SelectiveScanGradients<double>&, const double*);
extern template void short_conv_forward<double>(const ShortConvolution<double>&, Rows<double>, double*);
extern template void short_conv_backward<double>(const ShortConvolution<double>&, Rows<const double>, const double*, const ShortConvolutionGradients<double>&);
extern template void recurrent_forward<double>(const Recurrence<double, LstmCell<double>>&, double*, double*, double*, const RecurrenceTape<double>&);
extern template void recurrent_backward<double>(const Recurrence<double, LstmCell<double>>&, const RecurrenceTape<double>&, const double*, const double*, const double*, const double*, const RecurrenceGradients<double>&);
extern template void recurrent_forward<double>(const Recurrence<double, GruCell<double>>&, double*, double*, double*, const RecurrenceTape<double>&);
extern template void recurrent_backward<double>(const Recurrence<double, GruCell<double>>&, const RecurrenceTape<double>&, const double*, const double*, const double*, const double*, const RecurrenceGradients<double>&);
extern template void activate<double>(const ActivationParameters&, const double*, double*, Index);
extern template void activate_first<double>(const ActivationParameters&, const double*, const double*, double*, Index);
extern template void activate_second<double>(const ActivationParameters&, const double*, const double*, double*, Index);

}  // namespace ordo::kernels
