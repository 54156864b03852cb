// T5 (Raffel et al. 2020, arXiv 1910.10683; transformers models/t5), v1.1 and Flan-T5 with gated GELU: encoder and
// decoder of pre-norm blocks. Against Llama: scores are not scaled and have a learned bias by distance, the same in all
// layers of a stack; the width of the heads is free; one table is the embedding of both stacks and, in v1.0, the head.
import { ConfigError, defineModel, MAX_POSITIONS, schema } from '@q/config';
import { checkFinite, multiply, packedQkv, type DistanceBias, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import type { EncoderDecoder, InputName, Model, Seq2SeqLM, StateSpec } from './model.js';
import { attend, attendTo, attendWithin, keepForCross, type CrossHeads } from './nn/attention.js';
import { constantOf, type Constant } from './nn/constant.js';
import { activationPlace, Embedding, Place, RmsNorm } from './nn/layers.js';
import { forwardTogether, Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { RelativeBias } from './nn/relative-bias.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { assertLayers, assertPlausible, size } from './shared/sizes.js';

const { flag, nullable, orElse, sizeUpTo, text } = schema;

/** Config of a T5. Sizes are in elements. */
export interface T5Settings {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numDecoderLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly relativeAttentionNumBuckets: number;
  readonly relativeAttentionMaxDistance: number;
  readonly rmsNormEps: number;
  readonly hiddenAct: Activation;
  /** Whether the activation gates a second product. */
  readonly gated: boolean;
  /** Whether the head uses the embedding. */
  readonly tieWordEmbeddings: boolean;
  /** Whether the head reads the decoder's output times hiddenSize^-0.5. */
  readonly scaleDecoderOutputs: boolean;
  /** Whether there is an encoder only. */
  readonly encoderOnly: boolean;
  readonly decoderStartTokenId: number | null;
}

/** Distances beyond this are no distances: published ones have 128. */
const MAX_DISTANCE = 2 ** 15;

const config = defineModel({
  modelType: 't5',
  shape: {
    vocab_size: orElse(size.vocab, 32128),
    d_model: orElse(size.hidden, 512),
    d_kv: orElse(size.headDim, 64),
    d_ff: orElse(size.intermediate, 2048),
    num_layers: orElse(size.layers, 6),
    num_decoder_layers: nullable(size.layers),
    num_heads: orElse(size.heads, 8),
    relative_attention_num_buckets: orElse(sizeUpTo(MAX_DISTANCE), 32),
    relative_attention_max_distance: orElse(sizeUpTo(MAX_DISTANCE), 128),
    layer_norm_epsilon: orElse(size.normEps, 1e-6),
    feed_forward_proj: orElse(text, 'relu'),
    dense_act_fn: nullable(text),
    is_gated_act: nullable(schema.flag(false)),
    tie_word_embeddings: flag(true),
    scale_decoder_outputs: nullable(schema.flag(true)),
    is_encoder_decoder: flag(true),
    decoder_start_token_id: nullable(schema.integer),
  },
  expected: ['vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads', 'feed_forward_proj'],
  tokenIds: { eos: 1, pad: 0 },
  followsTies: ({ scaleDecoderOutputs }: T5Settings) => ({ scale_decoder_outputs: scaleDecoderOutputs }),
  read: (keys, raw, { op }): T5Settings => {
    const numDecoderLayers = keys.num_decoder_layers ?? keys.num_layers;
    checkBuckets(op, keys.relative_attention_num_buckets, keys.relative_attention_max_distance);
    assertLayers(op, { num_layers: keys.num_layers, num_decoder_layers: numDecoderLayers });
    const { vocab_size, d_model, d_ff } = keys;
    const layer = d_model * (4 * keys.num_heads * keys.d_kv + 3 * d_ff);
    const parameters = 2 * vocab_size * d_model + (keys.num_layers + 2 * numDecoderLayers) * layer;
    assertPlausible(op, parameters, { vocab_size, d_model, d_ff });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize: keys.d_model,
      intermediateSize: keys.d_ff,
      numLayers: keys.num_layers,
      numDecoderLayers,
      numHeads: keys.num_heads,
      headDim: keys.d_kv,
      relativeAttentionNumBuckets: keys.relative_attention_num_buckets,
      relativeAttentionMaxDistance: keys.relative_attention_max_distance,
      rmsNormEps: keys.layer_norm_epsilon,
      ...readFeedForward(op, keys.feed_forward_proj, keys.dense_act_fn, keys.is_gated_act),
      tieWordEmbeddings: keys.tie_word_embeddings,
      // Files before transformers 5 say it with the ties.
      scaleDecoderOutputs: keys.scale_decoder_outputs ?? keys.tie_word_embeddings,
      encoderOnly: !keys.is_encoder_decoder || [raw.architectures].flat()[0] === 'T5EncoderModel',
      decoderStartTokenId: keys.decoder_start_token_id,
    };
  },
});

/** `gated-gelu` and the like; what a file says of its parts wins, as in Python. @throws ConfigError */
function readFeedForward(
  op: string,
  projection: string,
  stated: string | null,
  gated: boolean | null,
): Pick<T5Settings, 'hiddenAct' | 'gated'> {
  const [, gate, name] = /^(gated-)?([^-]+)$/.exec(projection) ?? [];
  // The gated GELU of T5 is the approximation by tanh, under the name of the exact one.
  const parsed = activation.safeParse(stated ?? (projection === 'gated-gelu' ? 'gelu_new' : name));
  if (name !== undefined && parsed.success) return { hiddenAct: parsed.data, gated: gated ?? gate !== undefined };
  const [key, value] =
    stated === null || name === undefined ? ['feed_forward_proj', projection] : ['dense_act_fn', stated];
  throw new ConfigError(op, `${key} is ${JSON.stringify(value)}`, {
    why: parsed.success ? 'it must be an activation function, or gated- and one' : parsed.error.issues[0].message,
  });
}

/** Both halves of the buckets, and the logarithms of the far half, must be there. */
function checkBuckets(op: string, buckets: number, maxDistance: number): void {
  if (buckets < 4)
    throw new ConfigError(op, `relative_attention_num_buckets is ${buckets}`, { why: 'must be at least 4' });
  if (maxDistance <= Math.floor(buckets / 2))
    throw new ConfigError(op, `relative_attention_max_distance is ${maxDistance}`, {
      why: `must be more than half of the ${buckets} buckets`,
    });
}

const heads = ({ numHeads, headDim }: T5Settings): CrossHeads => ({ numHeads, numKvHeads: numHeads, headDim });

/** Projections of a layer's self or cross attention. */
class T5Attention extends Module {
  readonly className = 'T5Attention';
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly bias: RelativeBias | undefined;

  constructor(settings: T5Settings, bidirectional?: boolean) {
    super();
    const { hiddenSize, numHeads, headDim } = settings;
    const inner = numHeads * headDim;
    this.q = this.child('q', new Linear(hiddenSize, inner));
    this.k = this.child('k', new Linear(hiddenSize, inner));
    this.v = this.child('v', new Linear(hiddenSize, inner));
    this.o = this.child('o', new Linear(inner, hiddenSize));
    if (bidirectional === undefined) return;
    const { relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: maxDistance } = settings;
    const table = new RelativeBias({ buckets, maxDistance, bidirectional }, numHeads);
    this.bias = this.child('relative_attention_bias', table);
  }
}

class T5LayerSelfAttention extends Module {
  readonly className = 'T5LayerSelfAttention';
  readonly attention: T5Attention;
  readonly norm: RmsNorm;
  readonly layout: QkvLayout;

  constructor(
    settings: T5Settings,
    private readonly decodes: boolean,
    isFirst: boolean,
  ) {
    super();
    this.layout = packedQkv(settings.numHeads, settings.numHeads, settings.headDim);
    this.attention = this.child('SelfAttention', new T5Attention(settings, isFirst ? !decodes : undefined));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, C] → x + attention(norm(x))
  forward(x: Tensor, index: number, pass: Pass, distanceBias: DistanceBias): Tensor {
    const { q, k, v, o } = this.attention;
    const { layout } = this;
    const qkv = forwardTogether([q, k, v], this.norm.forward(x)); // [T, 3 H D]
    const mixed = this.decodes
      ? attend(qkv, index, pass, layout, { scale: 1, distanceBias })
      : attendWithin(qkv, pass, layout, { scale: 1, distanceBias, causal: false });
    return o.forward(mixed, { residual: x });
  }
}

class T5LayerCrossAttention extends Module {
  readonly className = 'T5LayerCrossAttention';
  readonly attention: T5Attention;
  readonly norm: RmsNorm;

  constructor(private readonly settings: T5Settings) {
    super();
    this.attention = this.child('EncDecAttention', new T5Attention(settings));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, C] → x + attention(norm(x), encoder's output)
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const q = this.attention.q.forward(this.norm.forward(x)); // [T, H D]
    const keyValuesOf = (hidden: Tensor) => this.keyValues(hidden);
    const mixed = attendTo(q, index, pass, heads(this.settings), keyValuesOf, { scale: 1 });
    return this.attention.o.forward(mixed, { residual: x });
  }

  // [T', C] → [T', 2 H D]
  keyValues(hidden: Tensor): Tensor {
    return forwardTogether([this.attention.k, this.attention.v], hidden);
  }
}

/** The feed-forward network: act(x) or act(gate x) · up x between two products. */
class T5Dense extends Module {
  readonly className: string;
  readonly inner: readonly Linear[];
  readonly outer: Linear;

  constructor(private readonly settings: T5Settings) {
    super();
    const { hiddenSize, intermediateSize, gated } = settings;
    this.className = gated ? 'T5DenseGatedActDense' : 'T5DenseActDense';
    const names = gated ? ['wi_0', 'wi_1'] : ['wi'];
    this.inner = names.map((name) => this.child(name, new Linear(hiddenSize, intermediateSize)));
    this.outer = this.child('wo', new Linear(intermediateSize, hiddenSize));
    this.child('dropout', new Place('Dropout'));
    this.child('act', activationPlace(settings.hiddenAct));
  }

  // x, residual [T, C] → residual + wo(act(wi x))
  forward(x: Tensor, residual: Tensor): Tensor {
    const { gated, hiddenAct } = this.settings;
    return this.outer.forward(forwardTogether(this.inner, x, { gated, activation: hiddenAct }), { residual });
  }
}

class T5LayerFF extends Module {
  readonly className = 'T5LayerFF';
  readonly dense: T5Dense;
  readonly norm: RmsNorm;

  constructor(settings: T5Settings) {
    super();
    this.dense = this.child('DenseReluDense', new T5Dense(settings));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  forward(x: Tensor): Tensor {
    return this.dense.forward(this.norm.forward(x), x);
  }
}

class T5Block extends Module {
  readonly className = 'T5Block';
  readonly attention: T5LayerSelfAttention;
  /** Of decoders. */
  readonly cross: T5LayerCrossAttention | undefined;
  readonly feedForward: T5LayerFF;

  constructor(settings: T5Settings, decodes: boolean, isFirst: boolean) {
    super();
    this.attention = new T5LayerSelfAttention(settings, decodes, isFirst);
    this.cross = decodes ? new T5LayerCrossAttention(settings) : undefined;
    this.feedForward = new T5LayerFF(settings);
    this.child('layer', new ModuleList([this.attention, ...(this.cross ? [this.cross] : []), this.feedForward]));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass, bias: DistanceBias): Tensor {
    const h = this.attention.forward(x, index, pass, bias);
    return this.feedForward.forward(this.cross?.forward(h, index, pass) ?? h);
  }
}

/** Encoder or decoder. */
class T5Stack extends Module {
  readonly className = 'T5Stack';
  readonly embedding: Embedding;
  readonly blocks: readonly T5Block[];
  readonly norm: RmsNorm;

  constructor(
    settings: T5Settings,
    private readonly name: 'encoder' | 'decoder',
  ) {
    super();
    const decodes = name === 'decoder';
    const layers = decodes ? settings.numDecoderLayers : settings.numLayers;
    this.embedding = this.child('embed_tokens', new Embedding(settings.vocabSize, settings.hiddenSize));
    const blocks = Array.from({ length: layers }, (_, i) => new T5Block(settings, decodes, i === 0));
    this.blocks = this.child('block', new ModuleList(blocks)).items;
    this.norm = this.child('final_layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  forward(pass: Pass): Tensor {
    const bias = this.blocks[0].attention.attention.bias!.on(pass);
    const { name } = this;
    const embedded = checkFinite(this.embedding.forward(pass.inputs.tokenIds!, pass.dtype), `${name}.embed_tokens`);
    const x = runLayers(this.blocks, embedded, pass, `${name}.block`, (block, h, i) => block.forward(h, i, pass, bias));
    return checkFinite(this.norm.forward(x), `${name}.final_layer_norm`);
  }
}

const normOf = ({ hiddenSize, rmsNormEps }: T5Settings): RmsNorm => new RmsNorm('T5LayerNorm', hiddenSize, rmsNormEps);

/** What the three models share: the embedding and the encoder, and what does not depend on the head. */
abstract class T5 extends Module implements Model {
  readonly encoder: T5Stack;
  readonly vocabSize: number;
  /** Distances saturate, so nothing in the model ends. */
  readonly maxContext = MAX_POSITIONS;
  readonly inputs: readonly InputName[] = ['tokenIds'];
  abstract readonly state: readonly StateSpec[];

  constructor(settings: T5Settings) {
    super();
    this.vocabSize = settings.vocabSize;
    this.child('shared', new Embedding(settings.vocabSize, settings.hiddenSize));
    this.encoder = this.child('encoder', new T5Stack(settings, 'encoder'));
  }

  abstract forward(pass: Pass): Tensor;
}

/** The encoder alone. */
export class T5EncoderModel extends T5 {
  readonly className = 'T5EncoderModel';
  readonly state = [];

  forward(pass: Pass): Tensor {
    return this.encoder.forward(pass);
  }
}

/** Encoder and decoder without a head. */
export class T5Model extends T5 implements EncoderDecoder {
  readonly className: string = 'T5Model';
  readonly decoder: T5Stack;
  readonly state: readonly StateSpec[];

  constructor(protected readonly settings: T5Settings) {
    super(settings);
    const { numKvHeads, headDim } = heads(settings);
    this.decoder = this.child('decoder', new T5Stack(settings, 'decoder'));
    this.state = (['kv', 'cross'] as const).flatMap((kind) =>
      this.decoder.blocks.map((owner) => ({ kind, owner, numKvHeads, headDim })),
    );
  }

  encode(pass: Pass): Tensor {
    const hidden = this.encoder.forward(pass); // [T', C]
    if (pass.state)
      this.decoder.blocks.forEach(({ cross }, index) =>
        hidden.backend.scope(() => keepForCross(cross!.keyValues(hidden), index, pass, heads(this.settings))),
      );
    return hidden;
  }

  forward(pass: Pass): Tensor {
    return this.decoder.forward(pass);
  }
}

/** Encoder and decoder with the language modelling head. */
export class T5ForConditionalGeneration extends T5Model implements Seq2SeqLM {
  override readonly className = 'T5ForConditionalGeneration';
  readonly head: Linear;
  readonly #scale: Constant | undefined;

  constructor(settings: T5Settings) {
    super(settings);
    const { hiddenSize, vocabSize, scaleDecoderOutputs } = settings;
    this.head = this.child('lm_head', new Linear(hiddenSize, vocabSize));
    if (scaleDecoderOutputs)
      this.#scale = constantOf(new Float32Array(hiddenSize).fill(hiddenSize ** -0.5), [hiddenSize]);
  }

  logits(hidden: Tensor): Tensor {
    const x = this.#scale ? multiply(hidden, this.#scale.on(hidden.backend)) : hidden;
    return checkFinite(this.head.forward(x), 'lm_head');
  }

  override dispose(): void {
    this.#scale?.dispose();
    super.dispose();
  }
}

export const t5 = architecture({
  config,
  heads: {
    seq2seqLM: (settings) => new T5ForConditionalGeneration(settings),
    base: (settings): Model => (settings.encoderOnly ? new T5EncoderModel(settings) : new T5Model(settings)),
  },
  noSplit: ['T5Block'],
  keepDense: ['lm_head'],
  keepInFp32: ['wo'],
  outputEmbeddings: 'lm_head',
  basePrefix: '',
  // Old files have a bias of the cross attention, which nothing reads.
  ignoredTensors: [/^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/],
  tied: { 'lm_head.weight': 'shared.weight' },
  alwaysTied: { 'encoder.embed_tokens.weight': 'shared.weight', 'decoder.embed_tokens.weight': 'shared.weight' },
});
