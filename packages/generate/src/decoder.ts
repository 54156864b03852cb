import type { CausalLM } from '@q/models';
import { advance, sample, type Backend, type Batch, type FloatDType, type Program, type SamplingState, type Tensor } from '@q/tensor';
import type { KvCache } from './cache.js';
import type { Sequence } from './sequence.js';

const iota = (count: number) => Int32Array.from({ length: count }, (_, i) => i);

/** Sampling options of sequences as device tensors, in the layout of the `sample` command. */
export function samplingState(backend: Backend, sequences: readonly Sequence[], historyCapacity: number): SamplingState {
  const count = sequences.length;
  const options = sequences.map(({ request }) => request.sampling);
  const penalised = options.some(({ repetitionPenalty }) => repetitionPenalty !== 1);
  const history = new Int32Array(penalised ? count * historyCapacity : 0);
  if (penalised) sequences.forEach(({ request, newIds }, row) => history.set([...request.ids, ...newIds], row * historyCapacity));
  return {
    floats: backend.tensor(options.flatMap(({ temperature, topP, minP, repetitionPenalty }) => [temperature, topP, minP, repetitionPenalty]), [count, 4], 'f32'),
    ints: backend.tensor(options.flatMap(({ doSample, topK, seed }) => [Number(doSample), topK, seed | 0, Math.floor(seed / 2 ** 32)]), [count, 4], 'i32'),
    counters: backend.tensor(sequences.map(({ newIds }) => newIds.length), [count], 'i32'),
    history: penalised ? backend.tensor(history, [count, historyCapacity], 'i32') : undefined,
    historyLengths: penalised ? backend.tensor(sequences.map(({ length }) => length), [count], 'i32') : undefined,
  };
}

/**
 * Decodes a fixed set of sequences, one token each per step, as one recorded program: its inputs live on the device, the sampled tokens
 * are fed back there, and the host only reads them.
 */
export class Decoder {
  readonly #owned: Tensor[] = [];
  readonly #batch: Batch;
  readonly #state: SamplingState;
  readonly #sampled: Tensor<'i32'>;
  #program: Program | undefined;
  readonly #lengths: readonly number[];
  #steps = 0;

  constructor(
    private readonly model: CausalLM,
    private readonly backend: Backend,
    sequences: readonly Sequence[],
    private readonly options: { cache: KvCache; maxBlocks: number; maxContext: number; dtype: FloatDType },
  ) {
    const count = sequences.length;
    this.#lengths = sequences.map(({ length }) => length);
    const { maxBlocks, maxContext } = options;
    const tables = new Int32Array(count * maxBlocks);
    sequences.forEach(({ blocks }, row) => tables.set(blocks, row * maxBlocks));
    const own = <T extends Tensor>(tensor: T): T => {
      this.#owned.push(tensor.keep());
      return tensor;
    };
    const i32 = (values: ArrayLike<number>, shape: readonly number[] = [values.length]) => own(backend.tensor(values, shape, 'i32'));
    this.#batch = {
      tokens: count, sequences: count, maxQuery: 1, maxContext,
      tokenIds: i32(sequences.map(({ newIds }) => newIds[newIds.length - 1])), positions: i32(sequences.map(({ length }) => length - 1)),
      sequenceOf: i32(iota(count)), sequenceStarts: i32(iota(count + 1)), contextLengths: i32(sequences.map(({ length }) => length)),
      blockTables: i32(tables, [count, maxBlocks]),
    };
    this.#state = samplingState(backend, sequences, maxContext);
    for (const tensor of Object.values(this.#state)) if (tensor) own(tensor as Tensor);
    this.#sampled = own(backend.empty([count], 'i32'));
  }

  /** Queues one step; resolves with the token of each sequence. */
  step(): Promise<Int32Array> {
    if (this.model.preparesEachStep || this.#steps === 0) {
      this.model.prepare(this.backend, this.#lengths.map((length) => length + this.#steps));
    }
    // The first step runs directly, so that the pool holds what the recording needs.
    if (this.#steps === 0) this.#forward();
    else {
      this.#program ??= this.backend.capture(() => this.#forward());
      this.#program.replay();
    }
    this.#steps += 1;
    return this.#sampled.data();
  }

  dispose(): void {
    this.#program?.dispose();
    for (const tensor of this.#owned) tensor.dispose();
  }

  #forward(): void {
    this.backend.scope(() => {
      const { cache, dtype } = this.options;
      const hidden = this.model.forward({ batch: this.#batch, kv: cache.layers, dtype });
      const tokens = sample(this.model.logits(hidden), this.#state);
      this.backend.submit('copy', { src: tokens.ref(), out: this.#sampled.ref() });
      advance(tokens, this.#batch, this.#state);
    });
  }
}
