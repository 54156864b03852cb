// DeepSeek V3 and R1 (DeepSeek-AI 2024, arXiv 2412.19437; transformers models/deepseek_v3). Against Qwen's experts:
// keys and values come of one small latent, a part of each key is rotated and shared by all heads (section 2.1.1);
// experts are chosen by sigmoids, in groups, with a correction for the choice alone (2.1.2); one expert sees all rows.
// Kept are keys and values of heads, not the latent: H (D + valueDim) numbers a token and layer in place of its width.
import { ConfigError, defineModel, isPlainObject, schema, type JsonObject, type RopeConfig } from '@q/config';
import { concatColumns, packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { z } from 'zod';
import { RmsNorm } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import type { Module } from './nn/module.js';
import { Rope, yarnMagnitude } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  noWindow,
  positive,
  readDecoder,
} from './shared/decoder-config.js';
import { Experts, expertSources, Router, SparseMlp } from './shared/experts.js';
import { GatedMlp } from './shared/mlp.js';
import { assertWholeHead } from './shared/rope-spelling.js';
import { SelfAttention } from './shared/self-attention.js';
import { assertPlausible, oneOf, size } from './shared/sizes.js';
import { assertExperts, numChoices, numExperts, sparseFamily, type SparseConfig } from './shared/sparse-decoder.js';

const { flag, integer, nullable, orElse } = schema;

export interface DeepseekV3Config extends SparseConfig {
  /** Width of the latent of queries; null: they come of one product. */
  readonly qLoraRank: number | null;
  /** Width of the latent of keys and values. */
  readonly kvLoraRank: number;
  /** Elements of a query or key head that are not rotated, before those that are. */
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly valueDim: number;
  /** Whether pairs that are rotated are neighbours. */
  readonly ropeInterleave: boolean;
  /** Factor on the scores of attention. */
  readonly scoreScale: number;
}

/** What published code computes otherwise under another value; Python's class has no such key. */
const only = (value: string | number) =>
  z.literal(value, { error: `must be ${JSON.stringify(value)}: other routings are not read` }).nullish();
/** A flag of which null means false, as in Python. */
const flagOrNull = z.nullable(z.boolean({ error: 'must be true or false' })).default(true);

const shape = {
  ...decoderShape({ vocab_size: 129280, intermediate_size: 18432, max_position_embeddings: 4096 }),
  hidden_size: orElse(size.hidden, 7168),
  num_hidden_layers: orElse(size.layers, 61),
  num_attention_heads: orElse(heads, 128),
  num_key_value_heads: z.nullable(heads).default(128),
  q_lora_rank: z.nullable(size.hidden).default(1536),
  kv_lora_rank: orElse(size.hidden, 512),
  qk_nope_head_dim: orElse(size.headDim, 128),
  qk_rope_head_dim: orElse(size.headDim.multipleOf(2, { error: 'must be even for rotary positions' }), 64),
  v_head_dim: orElse(size.headDim, 128),
  rope_interleave: flagOrNull,
  attention_bias: flag(false),
  first_k_dense_replace: orElse(integer.min(0, { error: 'must be 0 or more' }), 3),
  moe_intermediate_size: orElse(size.intermediate, 2048),
  n_shared_experts: orElse(numExperts, 1),
  // The second name is that of other classes.
  n_routed_experts: nullable(numExperts),
  num_local_experts: nullable(numExperts),
  num_experts_per_tok: orElse(numChoices, 8),
  n_group: orElse(numExperts, 8),
  topk_group: orElse(numExperts, 4),
  norm_topk_prob: flagOrNull,
  routed_scaling_factor: orElse(positive, 2.5),
  scoring_func: only('sigmoid'),
  topk_method: only('noaux_tc'),
  moe_layer_freq: only(1),
};
type Keys = z.output<z.ZodObject<typeof shape>>;

const config = defineModel({
  modelType: 'deepseek_v3',
  shape,
  // A sum of two others; layers that predict further tokens, which are no part of the model; settings of training.
  alsoReads: [
    ...decoderKeys,
    ...['qk_head_dim', 'num_nextn_predict_layers', 'num_mtp_layers', 'aux_loss_alpha', 'seq_aux', 'ep_size'],
  ],
  expected: [
    ...expectedKeys,
    ...['kv_lora_rank', 'qk_nope_head_dim', 'qk_rope_head_dim', 'v_head_dim', 'moe_intermediate_size'],
    ...['n_shared_experts', 'num_experts_per_tok', 'first_k_dense_replace', 'n_group', 'topk_group'],
    'routed_scaling_factor',
  ],
  tokenIds: { bos: 0, eos: 1 },
  read: (keys, raw, context): DeepseekV3Config => {
    const { op } = context;
    const { num_attention_heads: numHeads, qk_rope_head_dim, head_dim, attention_bias: attentionBias } = keys;
    assertOwnKeys(op, numHeads, keys.num_key_value_heads);
    // Rotary settings are those of the part that is rotated, to which Python sets head_dim.
    const qkRopeHeadDim = oneOf(op, { qk_rope_head_dim, head_dim }, qk_rope_head_dim);
    const decoder = readDecoder({ ...keys, head_dim: qkRopeHeadDim }, raw, context, {
      numKvHeads: numHeads,
      attentionBias,
      attentionOutputBias: attentionBias,
      mlpBias: false,
      ...noWindow(keys.num_hidden_layers),
    });
    assertWholeHead(op, decoder.rope);
    const headDim = keys.qk_nope_head_dim + qkRopeHeadDim;
    const settings = {
      ...decoder,
      ...readExperts(op, keys),
      headDim,
      qLoraRank: keys.q_lora_rank,
      kvLoraRank: keys.kv_lora_rank,
      qkNopeHeadDim: keys.qk_nope_head_dim,
      qkRopeHeadDim,
      valueDim: keys.v_head_dim,
      headNorms: false,
      ropeInterleave: keys.rope_interleave ?? false,
      scoreScale: scoreScale(op, raw, decoder.rope, headDim),
    };
    assertPlausible(op, parametersOf(settings), {
      num_hidden_layers: settings.numLayers,
      num_attention_heads: numHeads,
    });
    return settings;
  },
});

function assertOwnKeys(op: string, numHeads: number, ofKeys: number | null): void {
  if (ofKeys === null || ofKeys === numHeads) return;
  throw new ConfigError(op, `num_key_value_heads is ${ofKeys}`, {
    why: `every query head has a key and a value of its own: it must be num_attention_heads (${numHeads})`,
  });
}

type ExpertKeys = 'numExperts' | 'expertSize' | 'sharedExpertSize' | 'sparseLayers' | 'route';

function readExperts(op: string, keys: Keys): Required<Pick<DeepseekV3Config, ExpertKeys>> {
  const { n_routed_experts, num_local_experts, num_experts_per_tok: choices, num_hidden_layers: layers } = keys;
  const { n_group, topk_group, moe_intermediate_size: expertSize } = keys;
  const numExperts = oneOf(op, { n_routed_experts, num_local_experts }, 256);
  assertExperts(op, choices, numExperts, layers);
  assertGroups(op, numExperts, choices, n_group, topk_group);
  return {
    numExperts,
    expertSize,
    sharedExpertSize: expertSize * keys.n_shared_experts,
    sparseLayers: Array.from({ length: layers }, (_, layer) => layer >= keys.first_k_dense_replace),
    route: {
      choices,
      kind: 'sigmoid',
      groups: { count: n_group, top: topk_group },
      normalize: keys.norm_topk_prob ?? false,
      scale: keys.routed_scaling_factor,
      inModelDType: false,
    },
  };
}

function assertGroups(op: string, experts: number, choices: number, groups: number, top: number): void {
  const refuse = (what: string, why: string) => {
    throw new ConfigError(op, what, { why });
  };
  const each = experts / groups;
  if (!Number.isInteger(each) || (groups > 1 && each < 2))
    refuse(`n_group is ${groups}`, `must part n_routed_experts (${experts}) into groups of two or more`);
  if (top > groups) refuse(`topk_group is ${top}`, `must be at most n_group (${groups})`);
  if (top * each < choices)
    refuse(`topk_group is ${top}`, `so many groups of ${each} hold fewer than num_experts_per_tok (${choices})`);
}

/** 1 / sqrt(headDim), times a square where YaRN stretches the positions. @throws ConfigError for other types */
function scoreScale(op: string, raw: JsonObject, rope: RopeConfig, headDim: number): number {
  const plain = headDim ** -0.5;
  if (rope.type === 'yarn') return plain * yarnMagnitude(rope.factor, rope.mscaleAllDim ?? 0) ** 2;
  const given = raw.rope_parameters ?? raw.rope_scaling;
  if (rope.type !== 'default' && isPlainObject(given) && (given as JsonObject).mscale_all_dim)
    throw new ConfigError(op, `mscale_all_dim is set beside rope type ${rope.type}`, {
      why: 'only yarn reads it here',
    });
  return plain;
}

/** Parameters of attention and experts, about. */
function parametersOf(settings: Omit<DeepseekV3Config, 'layerTypes'>): number {
  const { numLayers, numHeads, hiddenSize, headDim, valueDim, qLoraRank, kvLoraRank, expertSize, numExperts } =
    settings;
  const perHead = (qLoraRank ?? hiddenSize) * headDim + kvLoraRank * (headDim + valueDim) + valueDim * hiddenSize;
  return numLayers * (numHeads * perHead + 3 * numExperts * expertSize * hiddenSize);
}

/** Python gives these norms no epsilon of the file. */
const latentNorm = (width: number) => new RmsNorm('DeepseekV3RMSNorm', width, 1e-6);

/** What makes queries, under Python's names: one product, or two with a norm between; and x [T, C] to [T, H D]. */
function queriesOf(settings: DeepseekV3Config): [children: Record<string, Module>, forward: (x: Tensor) => Tensor] {
  const { hiddenSize, qLoraRank, numHeads, headDim, attentionBias: bias } = settings;
  const up = new Linear(qLoraRank ?? hiddenSize, numHeads * headDim);
  if (qLoraRank === null) return [{ q_proj: up }, (x) => up.forward(x)];
  const down = new Linear(hiddenSize, qLoraRank, { bias });
  const norm = latentNorm(qLoraRank);
  const children = { q_a_proj: down, q_a_layernorm: norm, q_b_proj: up };
  return [children, (x) => up.forward(norm.forward(down.forward(x)))];
}

/** Queries, and for each head a key of its own part and the shared one, and a value, in packed rows. */
// queries [T, H D], latent [T, kvLoraRank + shared], keysAndValues [T, H (own + valueDim)] → [T, rowStride]
function pack(
  { numHeads: count, qkNopeHeadDim: own, qkRopeHeadDim: shared, kvLoraRank, valueDim }: DeepseekV3Config,
  { kOffset, vOffset, kvStride: stride, rowStride }: QkvLayout,
  queries: Tensor,
  latent: Tensor,
  keysAndValues: Tensor,
): Tensor {
  const fromStride = own + valueDim;
  return concatColumns(
    [
      { x: queries, offset: 0 },
      { x: keysAndValues, fromStride, offset: kOffset, stride, count, width: own },
      { x: latent, from: kvLoraRank, offset: kOffset + own, stride, count, width: shared },
      { x: keysAndValues, from: own, fromStride, offset: vOffset, stride, count, width: valueDim },
    ],
    rowStride,
  );
}

function attention(settings: DeepseekV3Config, rope: Rope): SelfAttention {
  const { hiddenSize, numHeads, headDim, valueDim, kvLoraRank, attentionBias: bias } = settings;
  const { qkNopeHeadDim: own, qkRopeHeadDim: shared, scoreScale: scale } = settings;
  const [children, queries] = queriesOf(settings);
  const down = new Linear(hiddenSize, kvLoraRank + shared, { bias });
  const norm = latentNorm(kvLoraRank);
  const up = new Linear(kvLoraRank, numHeads * (own + valueDim));
  const out = new Linear(numHeads * valueDim, hiddenSize, { bias });
  const layout = packedQkv(numHeads, numHeads, headDim, valueDim);
  const qkv = (x: Tensor) => {
    const latent = down.forward(x); // [T, kvLoraRank + shared]
    const compressed = concatColumns([{ x: latent, offset: 0, width: kvLoraRank }], kvLoraRank);
    return pack(settings, layout, queries(x), latent, up.forward(norm.forward(compressed)));
  };
  const options = (pass: Pass) => ({ scale, rope: { ...rope.in(pass), offset: own } });
  const rest = { kv_a_proj_with_mqa: down, kv_a_layernorm: norm, kv_b_proj: up, o_proj: out };
  return new SelfAttention('DeepseekV3Attention', { ...children, ...rest }, { qkv, out, layout, options });
}

/** Router, experts, and an MLP for all rows. */
function block(settings: DeepseekV3Config): SparseMlp {
  const experts = new Experts('DeepseekV3Experts', settings);
  const router = new Router('DeepseekV3TopkRouter', settings, settings.route, { correction: true, inFp32: true });
  const mlp = new GatedMlp('DeepseekV3MLP', { ...settings, intermediateSize: settings.sharedExpertSize! });
  const children = { experts, gate: router, shared_experts: mlp };
  return new SparseMlp('DeepseekV3MoE', children, { router, experts, shared: { mlp } });
}

export const deepseekV3 = sparseFamily(config, {
  family: 'DeepseekV3',
  block,
  attention,
  rope: ({ rope, qkRopeHeadDim: rotaryDim, maxPositionEmbeddings, ropeInterleave: interleaved }) =>
    new Rope('DeepseekV3RotaryEmbedding', rope, { rotaryDim, maxPositionEmbeddings, interleaved }),
  checkpoint: (parameter, { expertSize }) =>
    expertSources(parameter, expertSize, (path, expert, matrix) => `${path}.${expert}.${matrix}.weight`),
  // The published model's layer for further tokens, behind its 61.
  ignoredTensors: [/model\.layers\.61\./],
});
