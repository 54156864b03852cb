import type { Backend, Batch, FloatDType, KvLayer, Tensor } from '@q/tensor';
import type { Module } from './nn/module.js';

/** What a forward pass needs beside the weights. */
export interface ForwardContext {
  readonly batch: Batch;
  /** One entry per layer. */
  readonly kv: readonly KvLayer[];
  /** Dtype of activations. */
  readonly dtype: FloatDType;
}

/** Shape of one layer's cache: [blocks, numKvHeads, blockSize, headDim] for keys and for values. */
export interface KvShape {
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** A decoder that predicts the next token. */
export interface CausalLM extends Module {
  readonly vocabSize: number;
  /** Most tokens of a sequence, with what the rotary scaling adds to the trained length. */
  readonly maxContext: number;
  readonly kvShapes: readonly KvShape[];
  /**
   * Host work before a pass or a replay. `lengths`: for each sequence the context length that decides its rotary
   * scaling, which is the one after the pass; for a part of a prompt that of the whole prompt.
   */
  prepare(backend: Backend, lengths: readonly number[]): void;
  /** Whether {@link prepare} has work at every step. */
  readonly preparesEachStep: boolean;
  /** Packed tokens through all layers and the final norm: [T, hidden]. */
  forward(context: ForwardContext): Tensor;
  /** Rows of hidden states to logits [rows, vocab]. */
  logits(hidden: Tensor): Tensor;
}

/** An architecture: how to build a model from its config, and what planners and loaders must know of it. */
export interface Architecture<C = unknown> {
  readonly modelType: string;
  readonly build: (config: C) => CausalLM;
  /** Classes whose instances stay on one device. */
  readonly noSplit: readonly string[];
  /** Modules kept in full precision by 8-bit and 4-bit loading unless the config names others. */
  readonly keepDense: readonly string[];
  /** Path of the output embeddings. */
  readonly outputEmbeddings: string;
  /** Entries of old checkpoints that hold no weights. */
  readonly ignoredTensors: readonly RegExp[];
  /** Parameters that share memory when `tie_word_embeddings` is set: target to source. */
  readonly tied: Readonly<Record<string, string>>;
}
