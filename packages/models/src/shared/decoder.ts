import { checkFinite, type Tensor } from '@q/tensor';
import type { InputName, Model, StateSpec } from '../model.js';
import { Module, type ModuleList } from '../nn/module.js';
import { rebuildsOf } from '../nn/rope.js';
import { runLayers } from '../nn/run-layers.js';
import type { Pass } from '../pass/pass.js';
import type { DecoderLayer, Norm } from './decoder-layer.js';

/** What a decoder computes with, and what is to know of it. */
export interface DecoderParts {
  readonly vocabSize: number;
  /** Most tokens of a sequence. */
  readonly maxContext: number;
  /** Heads of keys and values of each layer. */
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Of value heads. Default headDim. */
  readonly valueDim?: number;
  /** Whether positions are read; with ALiBi they are not. Default true. */
  readonly readsPositions?: boolean;
  /** What enters the first layer: [T, C]. */
  readonly embed: (pass: Pass) => Tensor;
  readonly layers: ModuleList<DecoderLayer & Module>;
  readonly norm: Norm;
  /** Tables that belong to the model and are none of its modules. Default none. */
  readonly tables?: readonly { dispose(): void }[];
}

/** A decoder without a head, under the names of an architecture: embedding, layers of one kind, a norm. */
export class Decoder extends Module implements Model {
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly rebuildAt: readonly number[];
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[];
  readonly #names: { readonly embedding: string; readonly layers: string; readonly norm: string };

  /** @param children in Python's order, the embedding first; those of `parts` among them */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: DecoderParts,
  ) {
    super();
    const { layers, norm, numKvHeads, headDim, valueDim, readsPositions = true } = parts;
    this.childrenNamed(children);
    const names = Object.keys(children);
    const nameOf = (module: Module): string => names.find((name) => children[name] === module) ?? '';
    this.#names = { embedding: names[0], layers: nameOf(layers), norm: nameOf(norm) };
    this.vocabSize = parts.vocabSize;
    this.maxContext = parts.maxContext;
    this.rebuildAt = rebuildsOf(Object.values(children));
    this.inputs = readsPositions ? ['tokenIds', 'positionIds'] : ['tokenIds'];
    this.state = layers.items.map((owner) => ({ kind: 'kv', owner, numKvHeads, headDim, valueDim }));
  }

  forward(pass: Pass): Tensor {
    const { embed, layers, norm } = this.parts;
    const names = this.#names;
    const embedded = checkFinite(embed(pass), this.pathOf(names.embedding));
    const path = this.pathOf(names.layers);
    const x = runLayers(layers.items, embedded, pass, path, (layer, h, i) => layer.forward(h, i, pass));
    return checkFinite(norm.forward(x), this.pathOf(names.norm));
  }

  override dispose(): void {
    for (const table of this.parts.tables ?? []) table.dispose();
    super.dispose();
  }
}

/** The layers of a decoder. */
export const repeated = <L extends DecoderLayer & Module>(count: number, make: (index: number) => L): L[] =>
  Array.from({ length: count }, (_, index) => make(index));
