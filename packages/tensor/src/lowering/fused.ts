import { dtypes, type FloatDType } from '../dtype.js';
import { activationKinds, type ActivationKind } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import type { GateLimits } from '../ops/elementwise.js';
import { fusedLinear, gateAndUp } from '../ops/linear-command.js';
import { fusedExperts, mixChoices } from '../ops/experts-command.js';
import { headNormArgs } from '../ops/head-norm.js';
import { valueDimOf } from '../ops/attention.js';
import { concatArgs } from '../ops/rows.js';
import { attentionArgs, ropeArgs, rotate } from './attention-args.js';
import type { Lowering } from './lowering.js';

/** A result in the shape and dtype of x. */
const like = (x: Tensor): Tensor => x.backend.empty(x.shape, x.dtype);

/** The command gatedActivation; with what it multiplies rounded to `dtype`. */
export function gate(x: Tensor, kind: ActivationKind, limits: GateLimits, dtype: FloatDType): Tensor {
  const width = x.dim(-1) / 2;
  const out = x.backend.empty([...x.shape.slice(0, -1), width], x.dtype);
  x.backend.submit('gatedActivation', {
    x: x.ref(),
    out: out.ref(),
    rows: x.rows,
    width,
    kind: activationKinds[kind],
    limit: limits.limit ?? 0,
    upOffset: limits.upOffset ?? 0,
    dtype: dtypes[dtype].code,
  });
  return out;
}

/** Every op is one command, which rounds once, to the dtype of its result. */
export const fused: Lowering = {
  embedding(table, ids, dtype, scale) {
    const [vocab, width] = table.shape;
    const out = table.backend.empty([ids.count, width], dtype);
    const rows = ids.count;
    table.backend.submit('embedding', {
      table: table.ref(),
      ids: ids.ref(),
      out: out.ref(),
      rows,
      width,
      vocab,
      scale,
    });
    return out;
  },

  selectRows(x, indices) {
    const width = x.dim(1);
    const rows = indices.count;
    const out = x.backend.empty([rows, width], x.dtype);
    x.backend.submit('selectRows', { x: x.ref(), indices: indices.ref(), out: out.ref(), rows, width });
    return out;
  },

  concatColumns(parts, rowStride) {
    const [{ x }] = parts;
    const out = x.backend.empty([x.rows, rowStride], x.dtype);
    x.backend.submit('concatColumns', concatArgs(out, parts));
    return out;
  },

  /** Gate and up in one weight whose halves are no weights of their own are a product and a gatedActivation. */
  linear(x, parts, fusion) {
    if (fusion.inFp32 && x.dtype !== 'f32')
      return x.backend.scope(() => fused.linear(fused.cast(x, 'f32'), parts, fusion));
    if (!fusion.gated || parts.length === 2) return fusedLinear(x, parts, fusion);
    const halves = gateAndUp(parts[0]);
    if (halves) return fusedLinear(x, halves, fusion);
    return x.backend.scope(() => {
      const y = gate(fusedLinear(x, parts, {}), fusion.activation ?? 'none', fusion, 'f32');
      return fusion.residual ? fused.add(fusion.residual, y) : y;
    });
  },

  experts: fusedExperts,
  scaleRows: (x, factors) => mixChoices(x, factors, 'f32'),

  rmsNorm(x, weight, { eps, residual, weightOffset = 0 }) {
    const out = like(x);
    x.backend.submit('rmsNorm', {
      x: x.ref(),
      residual: residual?.ref(),
      sum: residual && x.ref(),
      weight: weight.ref(),
      out: out.ref(),
      rows: x.rows,
      width: x.dim(-1),
      eps,
      weightOffset,
    });
    return out;
  },

  layerNorm(x, { weight, bias, eps, residual }) {
    const out = like(x);
    x.backend.submit('layerNorm', {
      x: x.ref(),
      residual: residual?.ref(),
      sum: residual && x.ref(),
      weight: weight?.ref(),
      bias: bias?.ref(),
      out: out.ref(),
      rows: x.rows,
      width: x.dim(-1),
      eps,
    });
    return out;
  },

  headNorm(x, parts, options) {
    x.backend.submit('headNorm', headNormArgs(x, parts, options));
  },

  ropeKvWrite(qkv, kv, rows, layout, rope) {
    if (!rope || !rows.slots) return qkv.backend.submit('ropeKvWrite', ropeArgs(qkv, kv, rows, layout, rope));
    rotate(qkv, rows, layout, rope, 'f32');
    qkv.backend.submit('ropeKvWrite', ropeArgs(qkv, kv, rows, layout, undefined));
  },

  attention(qkv, kv, rows, layout, options) {
    const out = qkv.backend.empty([rows.tokens, layout.numHeads * valueDimOf(layout)], qkv.dtype);
    qkv.backend.submit('attention', attentionArgs(out, qkv, kv, rows, layout, options));
    return out;
  },

  activation(x, kind, inPlace) {
    const out = inPlace ? x : like(x);
    x.backend.submit('activation', { x: x.ref(), out: out.ref(), count: x.count, kind: activationKinds[kind] });
    return out;
  },

  gatedActivation: (x, kind, limits) => gate(x, kind, limits, 'f32'),

  multiply(a, b) {
    const out = like(a);
    const width = a.dim(-1);
    a.backend.submit('multiply', {
      a: a.ref(),
      b: b.ref(),
      out: out.ref(),
      rows: a.rows,
      width,
      aStride: width,
      bStride: b.shape.length === 1 && a.shape.length > 1 ? 0 : width,
    });
    return out;
  },

  add(a, b) {
    const out = like(a);
    a.backend.submit('add', { a: a.ref(), b: b.ref(), out: out.ref(), count: a.count });
    return out;
  },

  scaleInPlace(x, factor, softcap) {
    x.backend.submit('scale', { x: x.ref(), out: x.ref(), count: x.count, factor, softcap });
  },

  cast(x, dtype) {
    const out = x.backend.empty(x.shape, dtype);
    x.backend.submit('cast', { x: x.ref(), out: out.ref() });
    return out;
  },

  softmax(x) {
    const out = like(x);
    x.backend.submit('softmax', { x: x.ref(), out: out.ref(), rows: x.rows, width: x.dim(-1) });
    return out;
  },

  crossEntropy(logits, targets) {
    const [rows, width] = logits.shape;
    const out = logits.backend.empty([rows], 'f32');
    const args = { logits: logits.ref(), targets: targets.ref(), out: out.ref(), rows, width };
    logits.backend.submit('crossEntropy', args);
    return out;
  },
};
