// What decoders with routed experts share: Llama's names and norms, and in place of some MLPs a block of experts.
import { ConfigError, schema, type ModelDefinition } from '@q/config';
import { maxChoices, maxExperts, type RouteOptions, type Source } from '@q/tensor';
import { architecture, type Architecture } from '../architecture.js';
import { RmsNorm } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import type { Module } from '../nn/module.js';
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
  /** Whether attention has sinks. Default false. */
  readonly sinks?: boolean;
  /** One entry per layer: whether it has experts. */
  readonly sparseLayers: readonly boolean[];
}

/** Config of the family and the prefix of its Python class names. */
type Settings = SparseConfig & SparseNames;

export interface SparseNames {
  readonly family: string;
  /** The block of experts of a layer. */
  readonly block: (settings: SparseConfig) => SparseMlp;
  /** Where files keep a parameter; undefined: under its own name. */
  readonly checkpoint: (parameter: string, settings: SparseConfig) => readonly Source[] | undefined;
}

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

const normOf = ({ family, rmsNormEps }: Settings, width: number) => new RmsNorm(`${family}RMSNorm`, width, rmsNormEps);

function attention(settings: Settings, rope: Rope, window: number): SelfAttention {
  const { family, headDim, attentionBias: bias, attentionOutputBias: outputBias, rmsNormEps: eps } = settings;
  const parts = separateQkv(settings, { bias, outputBias });
  const norms = settings.headNorms
    ? { q_norm: normOf(settings, headDim), k_norm: normOf(settings, headDim) }
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
  (family: string, { routerFirst }: { routerFirst: boolean }): SparseNames['block'] =>
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

function layer(settings: Settings, rope: Rope, index: number): SequentialLayer {
  const { family, hiddenSize, layerTypes, slidingWindow, sparseLayers } = settings;
  const window = layerTypes[index] === 'sliding_attention' ? slidingWindow! : 0;
  const parts = {
    attention: attention(settings, rope, window),
    mlp: sparseLayers[index] ? settings.block(settings) : new GatedMlp(`${family}MLP`, settings),
    attentionNorm: normOf(settings, hiddenSize),
    mlpNorm: normOf(settings, hiddenSize),
  };
  const children: Record<string, Module> = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: parts.attentionNorm,
    post_attention_layernorm: parts.mlpNorm,
  };
  return new SequentialLayer(`${family}DecoderLayer`, children, parts);
}

function model(settings: Settings): Decoder {
  const rope = ropeOf(settings.family, settings);
  const make = (index: number) => layer(settings, rope, index);
  return rotaryDecoder(settings.family, settings, { rope, layer: make, norm: normOf(settings, settings.hiddenSize) });
}

/** An architecture of these modules. */
export const sparseFamily = <D extends ModelDefinition<string, SparseConfig>>(
  definition: D,
  names: SparseNames,
): Architecture<D> =>
  architecture({
    config: definition,
    heads: {
      causalLM: (settings) => {
        const base = model({ ...settings, ...names });
        return new CausalHead(`${names.family}ForCausalLM`, 'model', base, settings.hiddenSize);
      },
      base: (settings) => model({ ...settings, ...names }),
    },
    noSplit: [`${names.family}DecoderLayer`],
    keepDense: ['lm_head'],
    outputEmbeddings: 'lm_head',
    basePrefix: 'model',
    ignoredTensors: [/\.rotary_emb\.inv_freq$/],
    tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
    checkpoint: names.checkpoint,
  });
