// The models of BART and its relatives: one table is the embedding of both stacks and, where it is tied, the head.
import { add, checkFinite, linear, type Tensor } from '@q/tensor';
import type { EncoderDecoder, InputName, Model, Seq2SeqLM, StateSpec } from '../model.js';
import { keepForCross } from '../nn/attention.js';
import { Embedding, LayerNorm } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import { Module, ModuleList, type Parameter } from '../nn/module.js';
import { runLayers } from '../nn/run-layers.js';
import type { Pass } from '../pass/pass.js';
import type { BartSettings } from './bart-config.js';
import type { BartKind, Positions } from './bart-kind.js';
import { BartDecoderLayer, BartEncoderLayer, decoderHeads } from './bart-layers.js';

const embeddingOf = ({ vocabSize, hiddenSize, scaleEmbedding }: BartSettings, kind: BartKind): Embedding =>
  new Embedding(vocabSize, hiddenSize, {
    scale: scaleEmbedding ? Math.sqrt(hiddenSize) : 1,
    className: kind.embeddingClass,
  });

/** Encoder or decoder. */
class BartStack<L extends BartEncoderLayer | BartDecoderLayer> extends Module {
  readonly className: string;
  readonly embedding: Embedding;
  readonly positions: Positions;
  readonly embeddingNorm: LayerNorm | undefined;
  readonly lastNorm: LayerNorm | undefined;
  /** The norm is of the tokens alone. */
  readonly normsTokens: boolean;

  constructor(
    settings: BartSettings,
    kind: BartKind,
    name: 'encoder' | 'decoder',
    readonly layers: readonly L[],
  ) {
    super();
    const { hiddenSize } = settings;
    this.className = `${kind.classPrefix}${name === 'encoder' ? 'Encoder' : 'Decoder'}`;
    this.normsTokens = name === 'decoder' && kind.embeddingNorm === 'decoder tokens';
    const { scaleEmbedding } = settings;
    const scaled = { ...settings, scaleEmbedding: scaleEmbedding && !this.normsTokens };
    this.embedding = this.child('embed_tokens', embeddingOf(scaled, kind));
    this.positions = kind.positions(settings);
    this.child('embed_positions', this.positions.module);
    this.child('layers', new ModuleList<Module>(layers));
    if (kind.embeddingNorm) this.embeddingNorm = this.child('layernorm_embedding', new LayerNorm(hiddenSize, 1e-5));
    if (kind.normFirst) this.lastNorm = this.child('layer_norm', new LayerNorm(hiddenSize, 1e-5));
  }

  // ids [T] → [T, C]
  forward(pass: Pass): Tensor {
    const path = this.pathOf('layers');
    const embedded = checkFinite(this.#embed(pass), this.pathOf('embed_tokens'));
    const x = runLayers(this.layers, embedded, pass, path, (layer, h, i) => layer.forward(h, i, pass));
    return checkFinite(this.lastNorm?.forward(x) ?? x, this.pathOf('layer_norm'));
  }

  #embed(pass: Pass): Tensor {
    const tokens = this.embedding.forward(pass.inputs.tokenIds!, pass.dtype);
    const positions = this.positions.of(pass);
    if (!this.embeddingNorm) return add(tokens, positions);
    if (this.normsTokens) return add(this.embeddingNorm.forward(tokens), positions);
    return this.embeddingNorm.forward(add(tokens, positions));
  }
}

const layersOf = <L>(count: number, make: () => L): L[] => Array.from({ length: count }, make);

/** Encoder and decoder without a head. */
export class BartModel extends Module implements EncoderDecoder {
  readonly className: string;
  readonly encoder: BartStack<BartEncoderLayer>;
  readonly decoder: BartStack<BartDecoderLayer>;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds'];

  constructor(settings: BartSettings, kind: BartKind) {
    super();
    this.className = `${kind.classPrefix}Model`;
    this.vocabSize = settings.vocabSize;
    this.maxContext = settings.maxPositionEmbeddings;
    this.child('shared', embeddingOf(settings, kind));
    const encoder = layersOf(settings.numLayers, () => new BartEncoderLayer(settings, kind));
    const decoder = layersOf(settings.numDecoderLayers, () => new BartDecoderLayer(settings, kind));
    this.encoder = this.child('encoder', new BartStack(settings, kind, 'encoder', encoder));
    this.decoder = this.child('decoder', new BartStack(settings, kind, 'decoder', decoder));
    const { numKvHeads, headDim } = decoderHeads(settings);
    this.state = (['kv', 'cross'] as const).flatMap((state) =>
      decoder.map((owner) => ({ kind: state, owner, numKvHeads, headDim })),
    );
  }

  encode(pass: Pass): Tensor {
    const hidden = this.encoder.forward(pass); // [T', C]
    if (pass.state)
      this.decoder.layers.forEach(({ cross, heads }, index) =>
        hidden.backend.scope(() => keepForCross(cross.keyValues(hidden), index, pass, heads)),
      );
    return hidden;
  }

  forward(pass: Pass): Tensor {
    return this.decoder.forward(pass);
  }
}

/** Encoder and decoder with the language modelling head. */
export class BartForConditionalGeneration extends Module implements Seq2SeqLM {
  readonly className: string;
  readonly base: BartModel;
  readonly head: Linear;
  /** [1, V]; files may lack it, and it is zero then. */
  readonly finalBias: Parameter | undefined;

  constructor(settings: BartSettings, kind: BartKind) {
    super();
    const { vocabSize, hiddenSize } = settings;
    this.className = kind.headClass ?? `${kind.classPrefix}ForConditionalGeneration`;
    this.base = this.child('model', new BartModel(settings, kind));
    if (kind.finalBias)
      this.finalBias = this.parameter('final_logits_bias', [1, vocabSize], { optional: true, isBuffer: true });
    this.head = this.child('lm_head', new Linear(hiddenSize, vocabSize));
  }

  get vocabSize(): number {
    return this.base.vocabSize;
  }

  get maxContext(): number {
    return this.base.maxContext;
  }

  get state(): readonly StateSpec[] {
    return this.base.state;
  }

  get inputs(): readonly InputName[] {
    return this.base.inputs;
  }

  encode(pass: Pass): Tensor {
    return this.base.encode(pass);
  }

  forward(pass: Pass): Tensor {
    return this.base.forward(pass);
  }

  logits(hidden: Tensor): Tensor {
    const bias = this.finalBias?.loaded ? this.finalBias.tensor.reshape([this.vocabSize]) : undefined;
    return checkFinite(linear(hidden, [{ ...this.head.part(), bias }]), 'lm_head');
  }
}

/** The models by task. */
export const bartHeads = (kind: BartKind) => ({
  seq2seqLM: (settings: BartSettings): Seq2SeqLM => new BartForConditionalGeneration(settings, kind),
  base: (settings: BartSettings): Model => new BartModel(settings, kind),
});

/** Ties of a table that both stacks use, in the model with a head and in the one without. */
const tableTies = ['model.', ''].flatMap((prefix) =>
  ['encoder', 'decoder'].map((stack) => [`${prefix}${stack}.embed_tokens.weight`, `${prefix}shared.weight`] as const),
);

/** What planners and loaders need of each of them, beside its classes that are not split. */
export const bartFacts = {
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [/^(model\.)?(en|de)coder\.version$/],
  tied: { 'lm_head.weight': 'model.shared.weight' },
  alwaysTied: Object.fromEntries(tableTies),
};
