import type { Tensor } from '@q/tensor';
import { LearnedPositions } from '../nn/layers.js';
import type { Module } from '../nn/module.js';
import { SinusoidalTable } from '../nn/sinusoidal-table.js';
import type { Pass } from '../pass/pass.js';
import type { BartSettings } from './bart-config.js';

/** The positions of a stack. */
export interface Positions {
  readonly module: Module;
  /** The rows of a pass: [T, hidden]. */
  of(pass: Pass): Tensor;
}

/** What differs between BART and its relatives. */
export interface BartKind {
  /** What the names of the Python classes begin with. */
  readonly classPrefix: string;
  /** Class of the model with its head. Default `ForConditionalGeneration` behind the prefix. */
  readonly headClass?: string;
  /** Class of the embeddings. Default `Embedding`. */
  readonly embeddingClass?: string;
  /** Norms stand before each part, and a last one behind each stack; else behind each part. */
  readonly normFirst: boolean;
  /**
   * The norm of what enters the layers: of tokens and positions, or in the decoder of the tokens alone, which are not
   * scaled there. Default none.
   */
  readonly embeddingNorm?: 'sum' | 'decoder tokens';
  /** Whether the logits have a bias, which Python keeps as a buffer. */
  readonly finalBias: boolean;
  positions(settings: BartSettings): Positions;
}

/** Learned positions: position p has row p + offset. */
export const learnedPositions =
  (className: string, offset: number) =>
  ({ maxPositionEmbeddings, hiddenSize }: BartSettings): Positions => {
    const module = new LearnedPositions(maxPositionEmbeddings, hiddenSize, offset, className);
    return { module, of: ({ rows, dtype }) => module.forward(rows.positions, dtype) };
  };

/** Sines and cosines from position 0. */
export const sinusoidalTable =
  (className: string) =>
  ({ maxPositionEmbeddings, hiddenSize }: BartSettings): Positions => {
    const module = new SinusoidalTable(className, maxPositionEmbeddings, hiddenSize);
    return { module, of: (pass) => module.forward(pass) };
  };
