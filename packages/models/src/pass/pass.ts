import type { Backend, FloatDType, KvLayer, PagedRows, Rows, Tensor } from '@q/tensor';
import type { InputName } from '../model.js';
import type { Derived } from './derived.js';

/** Keys and values of one place of the model, and the rows as they see them: context lengths and block tables. */
export interface LayerKeys {
  readonly layer: KvLayer;
  readonly rows: PagedRows;
}

/** What the sequences of a pass left behind, and where this pass adds to it. */
export interface State {
  /** @param index counts the `kv` entries of the model's state */
  kv(index: number): LayerKeys;
  /** @param index counts the `cross` entries of the model's state */
  cross(index: number): LayerKeys;
}

/** What an encoder made, and the pass in which it did. */
export interface Encoded {
  readonly pass: Pass;
  /** [T', hidden] */
  readonly hidden: Tensor;
}

/** One run of a model over ragged rows. */
export interface Pass {
  readonly backend: Backend;
  /** Dtype of activations. */
  readonly dtype: FloatDType;
  readonly rows: Rows;
  /** By name, packed like the rows. */
  readonly inputs: Readonly<Partial<Record<InputName, Tensor>>>;
  /** Without it attention stays within the pass: encoders, scoring, training. */
  readonly state?: State;
  /** For decoders that read an encoder's output, in passes without state: what it made of as many sequences. */
  readonly source?: Encoded;
  /** Tables that follow from the lengths of the sequences. */
  readonly derived: Derived;
  /** Takes the hidden states before the first layer and behind each one, when they are wanted. */
  readonly hiddenStates?: Tensor[];
}
