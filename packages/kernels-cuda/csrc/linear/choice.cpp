#include "choice_rules.h"

namespace q::cuda {

LinearFacts facts_of(const LinearArgs& a) {
  LinearFacts f{};
  f.act = a.x.dtype;
  f.rows = a.rows;
  f.k = a.k;
  f.x_aligned = aligned16(a.x.data);
  f.gated = a.gated != 0;
  f.activation = static_cast<ActivationKind>(a.activation);
  f.parts = static_cast<int>(a.parts_count);
  for (int i = 0; i < f.parts; ++i) {
    const LinearArgsItem& s = a.parts[i];
    LinearPartFacts& p = f.part[i];
    p.kind = static_cast<WeightKind>(s.kind);
    p.n = s.n;
    p.weight = s.weight.dtype;
    p.bias = s.bias.dtype;
    p.compute = static_cast<DType>(s.compute_dtype);
    p.quant_type = static_cast<QuantType>(s.quant_type);
    p.block_size = s.block_size;
    p.nested_block_size = s.nested_block_size;
    p.threshold = static_cast<float>(s.threshold);
    p.biased = static_cast<bool>(s.bias);
    p.nested = static_cast<bool>(s.nested_absmax);
    p.aligned = aligned16(s.weight.data);
    p.absmax_aligned =
        p.nested ? aligned_to(s.absmax.data, 2) && aligned16(s.nested_code.data) : aligned_to(s.absmax.data, 8);
  }
  return f;
}

NormFacts facts_of(const RmsNormArgs& n, const LinearArgs& a) {
  const auto overlap = [](const Tensor& one, const Tensor& other) {
    return one.as<const uint8_t>() < other.as<const uint8_t>() + other.bytes &&
           other.as<const uint8_t>() < one.as<const uint8_t>() + one.bytes;
  };
  return {n.rows, n.width, n.x.dtype == a.x.dtype && n.out.dtype == a.x.dtype && n.weight.dtype == a.x.dtype,
          aligned16(n.x.data) && aligned16(n.out.data) && aligned16(n.weight.data),
          overlap(n.out, n.x) || overlap(a.out, n.x)};
}

LinearChoice choose_linear(const LinearFacts& f, const Machine& m) {
  if (f.rows == 0 || outputs_of(f) == 0) return {LinearKernel::none, "no rows or no outputs"};
  const char* refusal = few_rows_refusal(f, m);
  const bool few = !refusal && f.rows <= most_few_rows(f.part[0].kind);
  if (!few && !many_rows_refusal(f)) {
    LinearChoice c = choose_many_rows(f, m);
    c.passed = refusal ? refusal : "more rows than the kernels for few take";
    return c;
  }
  if (mixture(f) && !f.gated && f.parts > 1)
    return {LinearKernel::parts, "parts that differ, and more outputs than a product of many rows can index"};
  return choose_few_rows(f, m);
}

}  // namespace q::cuda
