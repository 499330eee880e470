#include "kernels.hpp"

namespace ordo::kernels {

template void gemm<float>(const GemmArgs<float>&);
template void gemm_small<float>(const GemmArgs<float>&);
template void attention_forward<float>(const AttentionInputs<float>&, const AttentionOutputs<float>&, const StandardMask<float>&, const StandardScore<float>&);
template void attention_backward<float>(const AttentionInputs<float>&, const AttentionGradients<float>&, const StandardMask<float>&, const StandardScore<float>&);
template void selective_scan_forward<float>(const SelectiveScan<float>&, Rows<float>, float*, float*);
template void selective_scan_backward<float>(const SelectiveScan<float>&, Rows<const float>, const float*, const SelectiveScanGradients<float>&, const float*);
template void short_conv_forward<float>(const ShortConvolution<float>&, Rows<float>, float*);
template void short_conv_backward<float>(const ShortConvolution<float>&, Rows<const float>, const float*, const ShortConvolutionGradients<float>&);
template void recurrent_forward<float>(const Recurrence<float, LstmCell<float>>&, float*, float*, float*, const RecurrenceTape<float>&);
template void recurrent_backward<float>(const Recurrence<float, LstmCell<float>>&, const RecurrenceTape<float>&, const float*, const float*, const float*, const float*, const RecurrenceGradients<float>&);
template void recurrent_forward<float>(const Recurrence<float, GruCell<float>>&, float*, float*, float*, const RecurrenceTape<float>&);
template void recurrent_backward<float>(const Recurrence<float, GruCell<float>>&, const RecurrenceTape<float>&, const float*, const float*, const float*, const float*, const RecurrenceGradients<float>&);
template void activate<float>(const ActivationParameters&, const float*, float*, Index);
template void activate_first<float>(const ActivationParameters&, const float*, const float*, float*, Index);
template void activate_second<float>(const ActivationParameters&, const float*, const float*, float*, Index);

}  // namespace ordo::kernels
