// What decoders with routed experts share: Llama's names and norms, and in place of some MLPs a block of experts.
import { ConfigError, schema, type ModelDefinition } from '@q/config';
import { maxChoices, maxExperts, type RouteOptions, type Source } from '@q/tensor';
import { architecture, type Architecture } from '../architecture.js';
import { RmsNorm } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import type { Rope } from '../nn/rope.js';
import type { Pass } from '../pass/pass.js';
import { CausalHead } from './causal-head.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoder-config.js';
import { SequentialLayer } from './decoder-layer.js';
import { Experts, Router, SparseMlp } from './experts.js';
import { ropeOf, rotaryDecoder } from './layer-norm-decoder.js';
import { GatedMlp } from './mlp.js';
import { SelfAttention, separateQkv } from './self-attention.js';

export const numExperts = schema.sizeUpTo(maxExperts);
export const numChoices = schema.sizeUpTo(maxChoices);
/** Experts of all layers; the largest published models have 16,000. */
const MOST_EXPERTS = 100_000;

/** A decoder of which some layers have experts. */
export interface SparseConfig extends DecoderConfig {
  readonly numExperts: number;
  /** Width of an expert. */
  readonly expertSize: number;
  readonly route: RouteOptions;
  /** Width of the expert for all rows; undefined: there is none. */
  readonly sharedExpertSize?: number;
  /** Whether heads of queries and keys have norms. */
  readonly headNorms: boolean;
  /** Size of value heads. Default headDim. */
  readonly valueDim?: number;
  /** Whether attention has sinks. Default false. */
  readonly sinks?: boolean;
  /** One entry per layer: whether it has experts. */
  readonly sparseLayers: readonly boolean[];
}

/** What the architectures differ in. */
export interface SparseParts<S extends SparseConfig> {
  /** Begins the names of the Python classes. */
  readonly family: string;
  /** The block of experts of a layer. */
  readonly block: (settings: S) => SparseMlp;
  /** Default: queries, keys and values by a product each. */
  readonly attention?: (settings: S, rope: Rope) => SelfAttention;
  /** Default: whole heads are rotated, halves against each other. */
  readonly rope?: (settings: S) => Rope;
  /** Where files keep a parameter; undefined: under its own name. */
  readonly checkpoint: (parameter: string, settings: S) => readonly Source[] | undefined;
  /** Entries of checkpoints that no model has, beside frequencies. Default none. */
  readonly ignoredTensors?: readonly RegExp[];
}

type Norms = Pick<SparseConfig, 'rmsNormEps'>;

/** @throws ConfigError when a row would go through more experts than there are, or layers and experts are too many */
export function assertExperts(op: string, choices: number, experts: number, layers: number): void {
  if (choices > experts)
    throw new ConfigError(op, `num_experts_per_tok is ${choices}`, { why: `there are ${experts} experts` });
  if (experts * layers > MOST_EXPERTS)
    throw new ConfigError(op, `${layers} layers of ${experts} experts make ${layers * experts}`, {
      why: `at most ${MOST_EXPERTS} are plausible`,
    });
}

/** Layers with experts: every `step`th, but for those named. */
export const everyStep = (numLayers: number, step: number, dense: readonly number[]): boolean[] =>
  Array.from({ length: numLayers }, (_, layer) => (layer + 1) % step === 0 && !dense.includes(layer));

const normOf = (family: string, { rmsNormEps }: Norms, width: number) =>
  new RmsNorm(`${family}RMSNorm`, width, rmsNormEps);

function usualAttention(family: string, settings: SparseConfig, rope: Rope, window: number): SelfAttention {
  const { headDim, attentionBias: bias, attentionOutputBias: outputBias, rmsNormEps: eps } = settings;
  const parts = separateQkv(settings, { bias, outputBias });
  const norms = settings.headNorms
    ? { q_norm: normOf(family, settings, headDim), k_norm: normOf(family, settings, headDim) }
    : undefined;
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, o_proj: parts.out, ...norms };
  const options = (pass: Pass) => ({
    window,
    rope: rope.in(pass),
    headNorms: norms && { query: norms.q_norm.weight.tensor, key: norms.k_norm.weight.tensor, eps },
  });
  const sinks = settings.sinks ? settings.numHeads : undefined;
  return new SelfAttention(`${family}Attention`, children, { ...parts, options, sinks });
}

/**
 * The usual block: router, experts, and where the config has one an expert for all rows.
 * @param routerFirst whether the router comes before the experts in Python's module
 */
export const sparseBlock =
  (family: string, { routerFirst }: { routerFirst: boolean }): SparseParts<SparseConfig>['block'] =>
  (settings) => {
    const { hiddenSize, sharedExpertSize } = settings;
    const router = new Router(`${family}TopKRouter`, settings, settings.route);
    const experts = new Experts(`${family}Experts`, settings);
    const shared =
      sharedExpertSize === undefined
        ? undefined
        : {
            mlp: new GatedMlp(`${family}MLP`, { ...settings, intermediateSize: sharedExpertSize }),
            gate: new Linear(hiddenSize, 1),
          };
    const children = {
      ...(routerFirst ? { gate: router, experts } : { experts, gate: router }),
      ...(shared && { shared_expert: shared.mlp, shared_expert_gate: shared.gate }),
    };
    return new SparseMlp(`${family}SparseMoeBlock`, children, { router, experts, shared });
  };

function layerOf<S extends SparseConfig>(
  parts: SparseParts<S>,
  settings: S,
  rope: Rope,
  index: number,
): SequentialLayer {
  const { family } = parts;
  const { hiddenSize, layerTypes, slidingWindow, sparseLayers } = settings;
  const window = layerTypes[index] === 'sliding_attention' ? slidingWindow! : 0;
  const [attentionNorm, mlpNorm] = [normOf(family, settings, hiddenSize), normOf(family, settings, hiddenSize)];
  const attention = parts.attention?.(settings, rope) ?? usualAttention(family, settings, rope, window);
  const mlp = sparseLayers[index] ? parts.block(settings) : new GatedMlp(`${family}MLP`, settings);
  const children = {
    self_attn: attention,
    mlp,
    input_layernorm: attentionNorm,
    post_attention_layernorm: mlpNorm,
  };
  return new SequentialLayer(`${family}DecoderLayer`, children, { attention, mlp, attentionNorm, mlpNorm });
}

function decoderOf<S extends SparseConfig>(parts: SparseParts<S>, settings: S): Decoder {
  const { family } = parts;
  const rope = parts.rope?.(settings) ?? ropeOf(family, settings);
  const layer = (index: number) => layerOf(parts, settings, rope, index);
  return rotaryDecoder(family, settings, { rope, layer, norm: normOf(family, settings, settings.hiddenSize) });
}

/** An architecture of these modules. */
export const sparseFamily = <M extends string, S extends SparseConfig>(
  definition: ModelDefinition<M, S>,
  parts: SparseParts<S>,
): Architecture<ModelDefinition<M, S>> =>
  architecture({
    config: definition,
    heads: {
      causalLM: (settings) =>
        new CausalHead(`${parts.family}ForCausalLM`, 'model', decoderOf(parts, settings), settings.hiddenSize),
      base: (settings) => decoderOf(parts, settings),
    },
    noSplit: [`${parts.family}DecoderLayer`],
    keepDense: ['lm_head'],
    outputEmbeddings: 'lm_head',
    basePrefix: 'model',
    ignoredTensors: [/\.rotary_emb\.inv_freq$/, ...(parts.ignoredTensors ?? [])],
    tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
    checkpoint: parts.checkpoint,
  });
