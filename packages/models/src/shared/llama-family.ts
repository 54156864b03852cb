// Decoders around Llama's skeleton: embedding, layers with rotary positions and RMS norms, a norm, a head. An
// architecture says what is not as in Llama, as facts or as modules of its own.
import { maxContext, type ModelDefinition } from '@q/config';
import type { QueryScaling } from '@q/tensor';
import { architecture, type Architecture } from '../architecture.js';
import type { SelfAttentionOptions } from '../nn/attention.js';
import { Embedding, RmsNorm, type RmsNormScale } from '../nn/layers.js';
import { ModuleList, type Module } from '../nn/module.js';
import { Rope } from '../nn/rope.js';
import type { Pass } from '../pass/pass.js';
import { CausalHead, type CausalHeadOptions } from './causal-head.js';
import type { DecoderConfig } from './decoder-config.js';
import { SequentialLayer, type DecoderLayer, type SequentialParts } from './decoder-layer.js';
import { Decoder, repeated } from './decoder.js';
import { GatedMlp } from './mlp.js';
import { SelfAttention, separateQkv } from './self-attention.js';

/** What a layer is made of. */
export interface LayerContext<S extends DecoderConfig> {
  /** Begins the names of the Python classes. */
  readonly name: string;
  readonly settings: S;
  readonly norm: () => RmsNorm;
  /** Positions, window and scale of the layer. */
  readonly options: (pass: Pass) => SelfAttentionOptions;
}

/** What is not as in Llama. */
export interface FamilyParts<S extends DecoderConfig> {
  readonly embedding?: (settings: S) => Embedding;
  readonly attention?: (context: LayerContext<S>) => SequentialParts['attention'];
  readonly mlp?: (context: LayerContext<S>) => SequentialParts['mlp'];
  readonly layer?: (
    parts: Pick<SequentialParts, 'attention' | 'mlp'>,
    context: LayerContext<S>,
  ) => DecoderLayer & Module;
  /** Factor and cap of the scores. Default 1 / sqrt(headDim), none. */
  readonly scores?: (settings: S) => Pick<SelfAttentionOptions, 'scale' | 'softcap'>;
  /** Whether a layer rotates queries and keys. Default: all do. */
  readonly rotates?: (settings: S, layer: number) => boolean;
  /** What rotated queries are multiplied by. Default nothing. */
  readonly queryScaling?: (settings: S) => QueryScaling;
  /** Pairs that are rotated are neighbours. Default false. */
  readonly interleaved?: boolean;
  /** How norms use their weight. Default: x / sqrt(...) is rounded, then multiplied by it. */
  readonly norm?: RmsNormScale;
  readonly logits?: (settings: S) => CausalHeadOptions;
}

/** Queries, keys and values by a product each. */
export function llamaAttention({ name, settings, options }: LayerContext<DecoderConfig>): SelfAttention {
  const { attentionBias: bias, attentionOutputBias: outputBias } = settings;
  const parts = separateQkv(settings, { bias, outputBias });
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, o_proj: parts.out };
  return new SelfAttention(`${name}Attention`, children, { ...parts, options });
}

const llamaMlp = ({ name, settings }: LayerContext<DecoderConfig>): GatedMlp => new GatedMlp(`${name}MLP`, settings);

/** A norm before attention and one before the MLP. @param more children behind them */
export function llamaLayer(
  parts: Pick<SequentialParts, 'attention' | 'mlp'>,
  { name, norm }: LayerContext<DecoderConfig>,
  more: Readonly<Record<string, Module>> = {},
): SequentialLayer {
  const [attentionNorm, mlpNorm] = [norm(), norm()];
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: attentionNorm,
    post_attention_layernorm: mlpNorm,
    ...more,
  };
  return new SequentialLayer(`${name}DecoderLayer`, children, { ...parts, attentionNorm, mlpNorm });
}

function layerOf<S extends DecoderConfig>(
  name: string,
  settings: S,
  parts: FamilyParts<S>,
  rope: Rope,
  index: number,
): DecoderLayer & Module {
  const slides = settings.layerTypes[index] === 'sliding_attention';
  const fixed = { ...parts.scores?.(settings), window: slides ? settings.slidingWindow! : 0 };
  const queryScaling = parts.queryScaling?.(settings);
  const rotates = parts.rotates?.(settings, index) ?? true;
  const context: LayerContext<S> = {
    name,
    settings,
    norm: () => normOf(name, settings, parts),
    options: (pass) => (rotates ? { ...fixed, rope: { ...rope.in(pass), queryScaling } } : fixed),
  };
  const attention = (parts.attention ?? llamaAttention)(context);
  const mlp = (parts.mlp ?? llamaMlp)(context);
  return (parts.layer ?? llamaLayer)({ attention, mlp }, context);
}

const normOf = <S extends DecoderConfig>(name: string, settings: S, { norm }: FamilyParts<S>): RmsNorm =>
  new RmsNorm(`${name}RMSNorm`, settings.hiddenSize, settings.rmsNormEps, norm);

/** The decoder without a head. */
function decoderOf<S extends DecoderConfig>(name: string, settings: S, parts: FamilyParts<S>): Decoder {
  const { vocabSize, hiddenSize, numLayers, numKvHeads, headDim, maxPositionEmbeddings } = settings;
  const rotaryDim = Math.floor(headDim * settings.rope.partialRotaryFactor);
  const shape = { rotaryDim, maxPositionEmbeddings, interleaved: parts.interleaved };
  const rope = new Rope(`${name}RotaryEmbedding`, settings.rope, shape);
  const embedding = parts.embedding?.(settings) ?? new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, (index) => layerOf(name, settings, parts, rope, index)));
  const norm = normOf(name, settings, parts);
  return new Decoder(
    `${name}Model`,
    { embed_tokens: embedding, layers, norm, rotary_emb: rope },
    {
      vocabSize,
      maxContext: maxContext(settings),
      numKvHeads,
      headDim,
      embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
      layers,
      norm,
    },
  );
}

/** An architecture on Llama's skeleton. @param name begins the names of its Python classes */
export const llamaFamily = <M extends string, S extends DecoderConfig>(
  definition: ModelDefinition<M, S>,
  name: string,
  parts: FamilyParts<S> = {},
): Architecture<ModelDefinition<M, S>> =>
  architecture({
    config: definition,
    heads: {
      causalLM: (settings) =>
        new CausalHead(
          `${name}ForCausalLM`,
          'model',
          decoderOf(name, settings, parts),
          settings.hiddenSize,
          parts.logits?.(settings),
        ),
      base: (settings) => decoderOf(name, settings, parts),
    },
    noSplit: [`${name}DecoderLayer`],
    keepDense: ['lm_head'],
    outputEmbeddings: 'lm_head',
    basePrefix: 'model',
    ignoredTensors: [/\.rotary_emb\.inv_freq$/],
    tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
  });
