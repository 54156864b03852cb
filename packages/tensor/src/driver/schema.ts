// The native ABI: every command a device queue understands, with its arguments in order. The TypeScript types of the
// commands, the encoder and native/q_ops.h (read by the C++ and CUDA addons) all come from this one table.
//
// Conventions, everywhere:
// - All tensors are contiguous and row-major. T packed tokens of all sequences, B sequences, V vocabulary, H heads, D
//   head size.
// - "act" is the activation dtype of the device: f32 on the CPU; f32, f16 or bf16 on CUDA (one per model). "float" is
//   any of the three.
// - Sums run in f32 in a fixed order: the same bits on every run, for a row whatever its neighbours are (eagerLinear
//   with int8 weights excepted).
// - Zero rows (T = 0) is valid and does nothing. Sizes may exceed 2^31 elements.

/** A list has at most `most` items, {@link maxLinearParts} unless it says more. */
export type FieldType = 'tensor' | 'tensor?' | 'int' | 'float' | { readonly repeat: Fields; readonly most?: number };
export type Fields = { readonly [name: string]: FieldType };

/** Kinds of weight a linear part can have. */
export const weightKinds = { dense: 0, bnb4: 1, int8: 2 } as const;
/** 4-bit code books of bitsandbytes. */
export const quantTypes = { nf4: 0, fp4: 1 } as const;
/** Activation functions: gelu is the erf form, gelu_tanh the tanh approximation, quick_gelu x * sigmoid(1.702 x). */
export const activationKinds = {
  none: 0,
  silu: 1,
  gelu: 2,
  gelu_tanh: 3,
  relu: 4,
  quick_gelu: 5,
  sigmoid: 6,
  tanh: 7,
} as const;
/** How the scores of the chosen experts come of logits; see `route`. */
export const routeKinds = { softmax: 0, softmax_of_chosen: 1, sigmoid: 2 } as const;
export const randomKinds = { normal: 0, uniform: 1, bits: 2 } as const;

export type ActivationKind = keyof typeof activationKinds;
export type RouteKind = keyof typeof routeKinds;
export type WeightKind = keyof typeof weightKinds;
export type QuantType = keyof typeof quantTypes;

/** A linear layer computes from 1 to 4 weights ("parts") that share their input: q, k and v, or gate and up. */
export const maxLinearParts = 4;
/** Experts of a layer, and choices of a row. */
export const maxExperts = 256;
export const maxChoices = 32;

const linearPart = {
  kind: 'int', // weightKinds
  n: 'int', // output features of this part
  weight: 'tensor', // dense: float [n, k] · bnb4: u8, two codes a byte, high nibble first, over the flattened [n, k] · int8: CB i8 [n, k]
  bias: 'tensor?', // float [n]
  absmax: 'tensor?', // bnb4: f32 [blocks], or u8 [blocks] when nested · int8: SCB f32 [n], the row absmax
  nestedAbsmax: 'tensor?', // f32 [ceil(blocks / nestedBlockSize)]
  nestedCode: 'tensor?', // f32 [256]; absmax of block i = nestedCode[absmax[i]] * nestedAbsmax[i / nestedBlockSize] + offset
  offset: 'tensor?', // f32 [1]
  blockSize: 'int', // values per absmax, over the flattened [n, k]; the last block may be short
  nestedBlockSize: 'int',
  quantType: 'int', // quantTypes
  computeDtype: 'int', // dtype code in which dequantized weights and x are multiplied (CUDA); the CPU computes in f32
  threshold: 'float', // int8: elements of x with |x| >= threshold are outliers, multiplied in act precision with dequantized weights (each row decides for itself); 0: none
} as const satisfies Fields;

const attentionFields = {
  qkv: 'tensor', // act [T, rowStride], only queries are read
  keyCache: 'tensor',
  valueCache: 'tensor',
  out: 'tensor', // act [T, numHeads * valueDim]
  sequenceStarts: 'tensor', // i32 [B + 1], first token of each sequence in the packed rows
  contextLengths: 'tensor', // i32 [B], keys of each sequence: query i of a sequence is at position contextLength - queryLength + i, which may be negative unless causal (keys of another sequence); at least 1 where there are queries
  blockTables: 'tensor',
  alibiSlopes: 'tensor?', // f32 [numHeads]: score += slope * (key position - query position)
  distanceBias: 'tensor?', // f32 [distances, numHeads]: score += distanceBias[clamp(key position - query position + biasOffset, 0, distances - 1), h]
  sinks: 'tensor?', // float [numHeads]: one more score a head, as it is, of a key without a value: it takes part in the softmax and adds nothing
  tokens: 'int',
  sequences: 'int',
  maxQuery: 'int', // largest query length in this pass
  maxContext: 'int', // upper bound of contextLengths (in a captured program: of every replay)
  numHeads: 'int',
  numKvHeads: 'int',
  headDim: 'int', // of queries and keys
  valueDim: 'int',
  scale: 'float',
  softcap: 'float', // > 0: score = softcap * tanh(score / softcap), after what is added
  causal: 'int',
  window: 'int', // > 0: a query sees itself and the window - 1 keys before it
  distances: 'int',
  biasOffset: 'int',
  qOffset: 'int',
  qGroupStride: 'int',
  rowStride: 'int',
  blockSize: 'int',
  maxBlocks: 'int',
} as const satisfies Fields;

/** Norms of heads, in place in packed rows; see the command. */
const headNormFields = {
  x: 'tensor', // act [rows, rowStride]
  rows: 'int',
  rowStride: 'int',
  centred: 'int', // 0: h / sqrt(mean(h^2) + eps) * (weight + weightOffset), as rmsNorm; 1: (h - mean(h)) / sqrt(variance(h) + eps) * (weight + weightOffset), as layerNorm; f32 inside
  eps: 'float',
  weightOffset: 'float',
  parts: {
    repeat: {
      weight: 'tensor', // float [width], or [count, width] with weightStride = width
      weightStride: 'int', // 0: one weight for all heads of the part
      offset: 'int', // head i lies at offset + (i / group) * groupStride + (i % group) * width, in elements
      count: 'int', // heads
      width: 'int', // of a head: what is normalised at a time
      group: 'int',
      groupStride: 'int',
    },
  },
} as const satisfies Fields;

export const commands = {
  // ---- memory
  fill: { out: 'tensor', value: 'float' }, // every element, any dtype
  random: { out: 'tensor', kind: 'int', scale: 'float', seed: 'int' }, // randomKinds: normal N(0, scale), uniform (-scale, scale), bits: random bytes
  copy: { src: 'tensor', out: 'tensor' }, // same byte length
  cast: { x: 'tensor', out: 'tensor' }, // float to float, round to nearest even; i64 to i32; same element count

  // ---- rows
  embedding: { table: 'tensor', ids: 'tensor', out: 'tensor', rows: 'int', width: 'int', vocab: 'int', scale: 'float' }, // out act [rows, width] = table float [vocab, width][ids i32] * scale; id -1 gives zeros (sampling gives it for broken logits); another one outside the table is an error of the queue
  selectRows: { x: 'tensor', indices: 'tensor', out: 'tensor', rows: 'int', width: 'int' }, // out[i] = x[indices[i]]; any dtype
  scatterRows: { x: 'tensor', indices: 'tensor', out: 'tensor', rows: 'int', width: 'int' }, // out[indices[i]] = x[i]; other rows untouched
  concatColumns: {
    // pieces of the rows of up to 4 tensors side by side: piece i of a part is out[row * rowStride + offset + i *
    // stride + j] = x[row * xRowStride + xOffset + i * xStride + j], j < width; what no part writes is left as it is
    out: 'tensor', // act [rows, rowStride]
    rows: 'int',
    rowStride: 'int',
    parts: {
      repeat: {
        x: 'tensor', // act [rows, xRowStride]
        xOffset: 'int',
        xStride: 'int', // between pieces; 0: the same piece for all
        xRowStride: 'int',
        offset: 'int',
        stride: 'int',
        count: 'int', // pieces
        width: 'int', // of a piece
      },
    },
  },

  // ---- linear: y = x W^T + bias for all parts side by side; then with `gated` (2 parts: gate, up) activation(gate) *
  // up as gatedActivation, else activation(y); then + residual
  linear: {
    x: 'tensor', // act [rows, k]
    out: 'tensor', // act [rows, sum of n], or [rows, n] when gated
    residual: 'tensor?', // act, shape of out; may be the same memory as out
    rows: 'int',
    k: 'int',
    activation: 'int',
    gated: 'int',
    limit: 'float', // of gate and up, see gatedActivation
    upOffset: 'float',
    parts: { repeat: linearPart },
  },

  // ---- routed experts: each of T rows goes through K of E experts. A choice of -1 (broken logits) gives NaN; another
  // one outside the experts is an error of the queue
  route: {
    // softmax: the K largest logits, scores their softmax over all; softmax_of_chosen: over those K. sigmoid: s =
    // sigmoid(logit), the K largest s + bias among the topGroups groups whose two largest s + bias have the largest
    // sums, scores their s. normalize: scores / (their sum + 1e-20 for sigmoid). Then times scale. The lowest index
    // wins ties. A row with NaN or plus infinity, or of minus infinity alone, gives -1 with NaN. The best comes first
    logits: 'tensor', // act [T, E]
    bias: 'tensor?', // f32 [E], for sigmoid
    chosen: 'tensor', // i32 [T, K]
    scores: 'tensor', // f32 [T, K]
    rows: 'int',
    experts: 'int',
    choices: 'int',
    kind: 'int', // routeKinds
    normalize: 'int',
    groups: 'int', // neighbouring experts, E / groups each
    topGroups: 'int',
    scale: 'float',
  },
  expertLinear: {
    // the parts of an expert, side by side in the order of the experts, as those of linear. Without scores row t gives
    // K rows, t K + j through the j-th choice, with activation and gate as in linear. With scores, one part each: row t
    // = sum over j of scores[t, j] * (row t K + j of x through its choice), + residual, summed in the order of j
    x: 'tensor', // act [T, k]; with scores [T K, k]
    chosen: 'tensor', // i32 [T, K]
    scores: 'tensor?', // f32 [T, K]
    residual: 'tensor?', // act, shape of out; only with scores
    out: 'tensor', // act [T K, n of all parts of an expert], gated [T K, n]; with scores [T, n]
    rows: 'int', // T
    choices: 'int', // K
    experts: 'int', // E
    k: 'int',
    n: 'int', // of a part
    activation: 'int',
    gated: 'int',
    limit: 'float',
    upOffset: 'float',
    kind: 'int', // of all weights, with what follows: see linearPart
    weightDtype: 'int', // of dense weights
    nested: 'int', // whether absmax is u8
    blockSize: 'int',
    nestedBlockSize: 'int',
    quantType: 'int',
    computeDtype: 'int',
    threshold: 'float',
    parts: {
      repeat: {
        weight: 'tensor',
        bias: 'tensor?',
        absmax: 'tensor?',
        nestedAbsmax: 'tensor?',
        nestedCode: 'tensor?',
        offset: 'tensor?',
      },
      most: 2 * maxExperts,
    },
  },
  mixChoices: { x: 'tensor', scores: 'tensor', out: 'tensor', rows: 'int', choices: 'int', width: 'int', dtype: 'int' }, // out act [T, width] = sum over j of R(scores f32 [T, K] * x act [T K, width]), R the rounding to the float dtype `dtype`; f32 rounds nothing

  // ---- norms; with `residual`: sum = x + residual is written to `sum` (may alias x or residual) and normalised
  rmsNorm: {
    x: 'tensor',
    residual: 'tensor?',
    sum: 'tensor?',
    weight: 'tensor',
    out: 'tensor',
    rows: 'int',
    width: 'int',
    eps: 'float',
    weightOffset: 'float',
  }, // x / sqrt(mean(x^2) + eps) * (weight + weightOffset), f32 inside; weight float [width]
  layerNorm: {
    x: 'tensor',
    residual: 'tensor?',
    sum: 'tensor?',
    weight: 'tensor?',
    bias: 'tensor?',
    out: 'tensor',
    rows: 'int',
    width: 'int',
    eps: 'float',
  },
  headNorm: headNormFields,

  // ---- attention over the paged cache. A cache layer is two tensors, keys [numBlocks, numKvHeads, blockSize, headDim]
  // and values [numBlocks, numKvHeads, blockSize, valueDim] (act dtype or any float); position p of sequence b lives in
  // block blockTables[b, p / blockSize] at p % blockSize. A row of qkv holds, in act, query head h at qOffset + (h /
  // groupSize) * qGroupStride + (h % groupSize) * headDim (groupSize = numHeads / numKvHeads), key head g at
  // kOffset + g * kvStride, value head g at vOffset + g * kvStride; rowStride is the row length. All in elements.
  ropeKvWrite: {
    qkv: 'tensor', // act [T, rowStride]; queries (none when numHeads is 0) are rotated in place, keys are rotated on their way to the cache (in qkv they are left undefined)
    keyCache: 'tensor',
    valueCache: 'tensor',
    positions: 'tensor', // i32 [T]: position in the sequence = place in the cache
    sequenceOf: 'tensor', // i32 [T]
    blockTables: 'tensor', // i32 [B, maxBlocks]
    inverseFrequencies: 'tensor?', // f32 [rotaryDim / 2], or [B, rotaryDim / 2] with perSequence; absent: no rotation
    tokens: 'int',
    numHeads: 'int',
    numKvHeads: 'int',
    headDim: 'int',
    valueDim: 'int',
    rotaryDim: 'int', // values of each head that are rotated
    rotaryOffset: 'int', // the first of them: 0 for a leading part, headDim - rotaryDim for the last
    interleaved: 'int', // 1: pairs (2i, 2i + 1) as GPT-J; 0: pairs (i, i + rotaryDim / 2) as Llama
    perSequence: 'int',
    ropeScale: 'float', // factor on cos and sin (attention factor of yarn and longrope)
    scalingBeta: 'float', // not 0: whole queries, rotated, times 1 + scalingBeta * ln(1 + floor(position / scalingLength))
    scalingLength: 'int',
    qOffset: 'int',
    qGroupStride: 'int',
    kOffset: 'int',
    vOffset: 'int',
    kvStride: 'int',
    rowStride: 'int',
    blockSize: 'int',
    maxBlocks: 'int',
  },
  attention: attentionFields,

  // ---- elementwise and rows
  activation: { x: 'tensor', out: 'tensor', count: 'int', kind: 'int' },
  gatedActivation: {
    x: 'tensor', // act [rows, 2 width] = gate | up
    out: 'tensor', // kind(gate) * (up + upOffset)
    rows: 'int',
    width: 'int',
    kind: 'int',
    limit: 'float', // > 0: gate is taken as at most limit, up as within -limit and limit
    upOffset: 'float',
    dtype: 'int', // code of the float dtype that kind(gate) and up + upOffset are rounded to; f32 rounds nothing
  },
  add: { a: 'tensor', b: 'tensor', out: 'tensor', count: 'int' },
  scale: { x: 'tensor', out: 'tensor', count: 'int', factor: 'float', softcap: 'float' }, // out = x * factor; then softcap * tanh(out / softcap) when softcap > 0
  softmax: { x: 'tensor', out: 'tensor', rows: 'int', width: 'int' },
  crossEntropy: { logits: 'tensor', targets: 'tensor', out: 'tensor', rows: 'int', width: 'int' }, // out f32 [rows] = -log softmax(logits act or f32)[target i32]; a negative target gives 0

  // ---- decoding; logits are act or f32 [B, V]
  argmax: { x: 'tensor', out: 'tensor', rows: 'int', width: 'int' }, // out i32 [rows]; the lowest index wins ties; -1 for a row with NaN or plus infinity, or of minus infinity alone
  sample: {
    logits: 'tensor',
    out: 'tensor', // i32 [B]
    floats: 'tensor', // f32 [B, 4]: temperature, topP, minP, repetitionPenalty
    ints: 'tensor', // i32 [B, 4]: doSample, topK (0: all), seed low, seed high
    counters: 'tensor', // i32 [B]: tokens this request has generated; the Philox4x32-10 counter is (counter, 0, 0, 0), its key (seed low, seed high), u = (first word + 0.5) / 2^32
    history: 'tensor?', // i32 [B, historyCapacity]: prompt and generated ids, for the repetition penalty
    historyLengths: 'tensor?', // i32 [B]
    rows: 'int',
    width: 'int',
    historyCapacity: 'int',
    // Order: repetition penalty, then (doSample) temperature, topK (ties with the k-th kept), topP, minP, softmax, and
    // the first index in vocabulary order whose cumulative probability exceeds u. doSample 0: argmax. Broken rows
    // give -1 as there; a temperature that takes the largest score out of f32 gives argmax. A -1 in history is passed
    // over.
  },
  advance: {
    sampled: 'tensor', // i32 [B]
    tokenIds: 'tensor', // i32 [B] <- sampled
    positions: 'tensor', // i32 [B] += 1
    contextLengths: 'tensor', // i32 [B] += 1
    counters: 'tensor', // i32 [B] += 1
    history: 'tensor?', // i32 [B, historyCapacity] <- sampled at historyLengths, while it fits
    historyLengths: 'tensor?', // i32 [B] += 1
    rows: 'int',
    historyCapacity: 'int',
  },

  // ---- quantization, bit-equal to bitsandbytes
  quantize4bit: { x: 'tensor', codes: 'tensor', absmax: 'tensor', count: 'int', blockSize: 'int', quantType: 'int' }, // x float; absmax f32 [ceil(count / blockSize)]; codes u8 [ceil(count / 2)]
  dequantize4bit: {
    codes: 'tensor',
    absmax: 'tensor',
    nestedAbsmax: 'tensor?',
    nestedCode: 'tensor?',
    offset: 'tensor?',
    out: 'tensor',
    count: 'int',
    blockSize: 'int',
    nestedBlockSize: 'int',
    quantType: 'int',
  },
  quantizeAbsmax: {
    x: 'tensor',
    out: 'tensor',
    nestedAbsmax: 'tensor',
    nestedCode: 'tensor',
    offset: 'tensor',
    count: 'int',
    blockSize: 'int',
  }, // offset = mean(x); out u8 = nearest nestedCode of (x - offset) / block absmax
  quantizeInt8: { x: 'tensor', codes: 'tensor', absmax: 'tensor', rows: 'int', width: 'int' }, // CB i8 = round(127 x / row absmax), SCB f32 [rows]
  dequantizeInt8: { codes: 'tensor', absmax: 'tensor', out: 'tensor', rows: 'int', width: 'int' }, // out = CB * SCB / 127

  // ---- eager numerics: steps of an unfused PyTorch model, for comparison with it. `dtype` is the code of the float
  // dtype that each result and each named intermediate is rounded to (R below), also where act is wider; f32 rounds
  // nothing. Plain kernels: these commands are no fast path.
  multiply: { a: 'tensor', b: 'tensor', out: 'tensor', rows: 'int', width: 'int', aStride: 'int', bStride: 'int' }, // out act [rows, width] = a act * b float, each with elements between its rows; bStride 0: one row for all. One rounding, to act
  eagerLinear: {
    // y = x W^T + bias for all parts side by side, without a residual or an activation
    x: 'tensor', // act [rows, k]
    out: 'tensor', // act [rows, sum of n]
    rows: 'int',
    k: 'int',
    dtype: 'int',
    parts: { repeat: linearPart },
    // dense: R(sum x w + bias).
    // bnb4, C = rounding to computeDtype, w = C(code * absmax): R(C(sum C(x) w + C(bias))). Up to 4 rows, when k is a
    // multiple of blockSize, as bitsandbytes'
    //   kernel for few rows: w = C(C(code) * C(absmax)) and sum C(C(x) w).
    // int8, H = rounding to f16, x' = H(x): outlier columns are those in which |x'| >= threshold > 0 in any row; absmax
    // of a row is that of its elements
    //   below the threshold, those in outlier columns included; codes = round to even(x' * (127 * (1 / absmax))), 0 in
    //   outlier columns; y = H(float(sum codes CB) * absmax * SCB * 6.200012e-05 + bias), where a bias is added in a
    //   step of its own, H(y + bias), unless dtype is f16; then R(R(y) + sum over outlier columns of R(x) * R(CB * SCB
    //   / 127)), without outlier columns R(y).
  },
  eagerRope: {
    // in place on the queries and keys of qkv; fields as in ropeKvWrite
    qkv: 'tensor', // act [T, rowStride]
    positions: 'tensor',
    sequenceOf: 'tensor',
    inverseFrequencies: 'tensor',
    tokens: 'int',
    numHeads: 'int',
    numKvHeads: 'int',
    headDim: 'int',
    rotaryDim: 'int',
    rotaryOffset: 'int',
    interleaved: 'int',
    perSequence: 'int',
    ropeScale: 'float',
    scalingBeta: 'float', // q' = R(q R(1 + scalingBeta * ln(1 + floor(position / scalingLength))))
    scalingLength: 'int',
    qOffset: 'int',
    qGroupStride: 'int',
    kOffset: 'int',
    kvStride: 'int',
    rowStride: 'int',
    dtype: 'int', // cos = R(cos(angle) * ropeScale), sin likewise; a' = R(R(a cos) - R(b sin)), b' = R(R(b cos) + R(a sin))
  },
  eagerHeadNorm: {
    ...headNormFields,
    roundFirst: 'int', // 1: R(R(h / sqrt(...)) * (weight + weightOffset)); 0: R of the whole
    dtype: 'int',
  },
  eagerAttention: { ...attentionFields, dtype: 'int' }, // p = exp(score - largest score of the row, the sink among them) in f32; R((sum R(p) v) / (sum p)): the rounding of flash attention within one block of keys
} as const satisfies Record<string, Fields>;

export type CommandName = keyof typeof commands;
export const commandNames = Object.keys(commands) as CommandName[];

/** A tensor as the driver sees it: bytes of a buffer and how to read them. */
export interface TensorRef {
  readonly buffer: number;
  readonly offset: number;
  readonly dtypeCode: number;
  readonly bytes: number;
  /** The backend whose buffer it is; {@link encode} refuses another one's. */
  readonly device?: { readonly name: string };
}

type FieldValue<F extends FieldType> = F extends 'tensor'
  ? TensorRef
  : F extends 'tensor?'
    ? TensorRef | undefined
    : F extends 'int' | 'float'
      ? number
      : F extends { readonly repeat: infer G extends Fields }
        ? readonly FieldValues<G>[]
        : never;
export type FieldValues<S extends Fields> = { -readonly [K in keyof S]: FieldValue<S[K]> };

/** Arguments of a command, by name. */
export type CommandArgs<N extends CommandName> = FieldValues<(typeof commands)[N]>;
