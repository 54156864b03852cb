// The models of T5, mT5 and umT5: one table is the embedding of both stacks and, where it is tied, the head.
import { MAX_POSITIONS } from '@q/config';
import { checkFinite, multiply, type Tensor } from '@q/tensor';
import type { Task } from '../architecture.js';
import type { EncoderDecoder, InputName, Model, Seq2SeqLM, StateSpec } from '../model.js';
import { keepForCross } from '../nn/attention.js';
import { constantOf, type Constant } from '../nn/constant.js';
import { Embedding } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';
import type { T5Settings } from './t5-config.js';
import { headsOf, T5Stack } from './t5-layers.js';

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
  readonly className: string;
  readonly state = [];

  constructor(settings: T5Settings) {
    super(settings);
    this.className = `${settings.classPrefix}EncoderModel`;
  }

  forward(pass: Pass): Tensor {
    return this.encoder.forward(pass);
  }
}

/** Encoder and decoder without a head. */
export class T5Model extends T5 implements EncoderDecoder {
  readonly decoder: T5Stack;
  readonly state: readonly StateSpec[];

  constructor(protected readonly settings: T5Settings) {
    super(settings);
    const { numKvHeads, headDim } = headsOf(settings);
    this.decoder = this.child('decoder', new T5Stack(settings, 'decoder'));
    this.state = (['kv', 'cross'] as const).flatMap((kind) =>
      this.decoder.blocks.map((owner) => ({ kind, owner, numKvHeads, headDim })),
    );
  }

  get className(): string {
    return `${this.settings.classPrefix}Model`;
  }

  encode(pass: Pass): Tensor {
    const hidden = this.encoder.forward(pass); // [T', C]
    if (pass.state)
      this.decoder.blocks.forEach(({ cross }, index) =>
        hidden.backend.scope(() => keepForCross(cross!.keyValues(hidden), index, pass, headsOf(this.settings))),
      );
    return hidden;
  }

  forward(pass: Pass): Tensor {
    return this.decoder.forward(pass);
  }
}

/** Encoder and decoder with the language modelling head. */
export class T5ForConditionalGeneration extends T5Model implements Seq2SeqLM {
  readonly head: Linear;
  readonly #scale: Constant | undefined;

  constructor(settings: T5Settings) {
    super(settings);
    const { hiddenSize, vocabSize, scaleDecoderOutputs } = settings;
    this.head = this.child('lm_head', new Linear(hiddenSize, vocabSize));
    if (scaleDecoderOutputs)
      this.#scale = constantOf(new Float32Array(hiddenSize).fill(hiddenSize ** -0.5), [hiddenSize]);
  }

  override get className(): string {
    return `${this.settings.classPrefix}ForConditionalGeneration`;
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

/** The models by task. */
export const t5Heads = {
  seq2seqLM: (settings: T5Settings): Seq2SeqLM => new T5ForConditionalGeneration(settings),
  base: (settings: T5Settings): Model => (settings.encoderOnly ? new T5EncoderModel(settings) : new T5Model(settings)),
};

/** What each of them has beside its config, heads and classes that are not split. */
export const t5Facts = {
  lacks: ({ encoderOnly }: T5Settings): Task[] => (encoderOnly ? ['seq2seqLM'] : []),
  keepDense: ['lm_head'],
  keepInFp32: ['wo'],
  outputEmbeddings: 'lm_head',
  basePrefix: '',
  // Old files have a bias of the cross attention, which nothing reads.
  ignoredTensors: [/^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/],
  tied: { 'lm_head.weight': 'shared.weight' },
  alwaysTied: { 'encoder.embed_tokens.weight': 'shared.weight', 'decoder.embed_tokens.weight': 'shared.weight' },
};
