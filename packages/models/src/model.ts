import type { Shape, Tensor } from '@q/tensor';
import type { Module } from './nn/module.js';
import type { Pass } from './pass/pass.js';

/** Keys [blocks, numKvHeads, blockSize, headDim], and values with valueDim in place of headDim. */
export interface KeyValueSpec {
  readonly owner: Module;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Default headDim. */
  readonly valueDim?: number;
}

/** What a sequence leaves behind for its next tokens, one entry for each place that keeps it. */
export type StateSpec =
  /** Keys and values of every token, in a paged cache. */
  | (KeyValueSpec & { readonly kind: 'kv' })
  /** Keys and values of an encoder's output, written once for each sequence. */
  | (KeyValueSpec & { readonly kind: 'cross' })
  /** Numbers of a fixed shape for each sequence, in the dtype of the cache. */
  | { readonly kind: 'recurrent'; readonly owner: Module; readonly shape: Shape };

/** What a forward pass may be given for each row; positions are part of the rows, for models that read them. */
export type InputName = 'tokenIds' | 'tokenTypeIds' | 'positionIds';

/** Makes one vector of a sequence's hidden states. */
export interface Pooler {
  /** Packed rows [T, hidden] to [B, hidden]. */
  forward(hidden: Tensor, pass: Pass): Tensor;
}

/** Runs passes. */
export interface Model extends Module {
  readonly vocabSize: number;
  /** Most tokens of a sequence, with what the rotary scaling adds to the trained length. */
  readonly maxContext: number;
  /**
   * Lengths from which on keys are rotated otherwise, so that those kept of a shorter text are void: a text that
   * reaches one is computed anew. Default none.
   */
  readonly rebuildAt?: readonly number[];
  /** In order of the layers; empty when nothing is kept from token to token. */
  readonly state: readonly StateSpec[];
  /** The inputs it reads; others are none of its. */
  readonly inputs: readonly InputName[];
  /** Kinds of `tokenTypeIds`, where it reads them. */
  readonly tokenTypes?: number;
  /** Packed rows through all layers and the final norm: [T, hidden]. */
  forward(pass: Pass): Tensor;
  /** The pooling layer of models that have one: what {@link forward} gives to [B, hidden]. */
  readonly pooler?: Pooler;
}

/** A decoder that predicts the next token. */
export interface CausalLM extends Model {
  /** Rows of hidden states to logits [rows, vocab]. */
  logits(hidden: Tensor): Tensor;
}

/** A decoder that reads what an encoder made of another text. */
export interface EncoderDecoder extends Model {
  /** The encoder: packed rows to [T, hidden]; with state it also leaves there what the decoder reads. */
  encode(pass: Pass): Tensor;
}

/** One that predicts the next token. */
export interface Seq2SeqLM extends CausalLM, EncoderDecoder {}

export const isEncoderDecoder = <M extends Model>(model: M): model is M & EncoderDecoder => 'encode' in model;
