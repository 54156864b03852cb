// A step as a list of segments: what the engine records, and a model whose layers are on two devices.
import { Derived, runLayers, type CausalLM, type Module, type ModuleList, type Pass } from '@q/models';
import {
  advance,
  copy,
  disposeSegments,
  ReferenceDriver,
  replaySegments,
  sample,
  type Backend,
  type Driver,
  type Segment,
  type Tensor,
} from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { KvCache, PagedState } from './cache.js';
import { samplingState } from './decoder.js';
import { Engine } from './engine.js';
import { Sequence } from './sequence.js';
import { backendOf, collect, llamaText, randomModel, request, stepByStep } from './testing.js';

interface Counts {
  submit: number;
  write: number;
  replay: number;
}

/** Counts what the host asks of a device. */
class CountingDriver extends ReferenceDriver {
  counts: Counts = { submit: 0, write: 0, replay: 0 };

  override submit(...args: Parameters<ReferenceDriver['submit']>): void {
    this.counts.submit += 1;
    super.submit(...args);
  }

  override write(...args: Parameters<ReferenceDriver['write']>): void {
    this.counts.write += 1;
    super.write(...args);
  }

  override replay(program: number): void {
    this.counts.replay += 1;
    super.replay(program);
  }
}

describe('a recorded step of one device', () => {
  it.each([
    ['is one replay', {}, {}, { submit: 0, write: 0, replay: 1 }],
    [
      'writes a table first where one follows from the lengths',
      { rope_type: 'dynamic', factor: 2 },
      {},
      { submit: 0, write: 1, replay: 1 },
    ],
    ['runs on the host where every layer is checked', {}, { checkFinite: true }, { replay: 0 }],
  ])('%s', async (_, rope, options, expected) => {
    const driver = new CountingDriver();
    const backend = backendOf(driver, options);
    const engine = new Engine(randomModel(backend, llamaText(rope)), backend, { dtype: 'f32' });
    const countsOf = async (tokens: number): Promise<Counts> => {
      driver.counts = { submit: 0, write: 0, replay: 0 };
      await collect(engine.submit(request([7, 8], tokens)));
      return driver.counts;
    };
    await countsOf(4); // records
    const [few, more] = [await countsOf(4), await countsOf(14)];
    const names = Object.keys(few) as (keyof Counts)[];
    const perStep = Object.fromEntries(names.map((name) => [name, (more[name] - few[name]) / 10]));
    expect(perStep).toMatchObject(expected);
    await engine.dispose();
  });
});

interface Block extends Module {
  forward(x: Tensor, index: number, pass: Pass): Tensor;
}

/** One device of a step: the whole model, of which it runs a part, and a sequence of one token. */
class Place {
  readonly model: CausalLM;
  readonly tokenIds: Tensor<'i32'>;
  readonly pass: Pass;
  readonly state;

  constructor(
    readonly backend: Backend,
    firstToken: number,
  ) {
    this.model = randomModel(backend);
    const i32 = (values: number[], shape = [values.length]) => backend.tensor(values, shape, 'i32');
    const [positions, sequenceOf, sequenceStarts, contextLengths] = [i32([0]), i32([0]), i32([0, 1]), i32([1])];
    const rows = { positions, sequenceOf, sequenceStarts, contextLengths, blockTables: i32([0], [1, 1]) };
    const kv = { tokens: 1, sequences: 1, maxQuery: 1, maxContext: 32, ...rows };
    const cache = new KvCache(this.model, backend, { blocks: 1, dtype: 'f32' });
    this.tokenIds = i32([firstToken]);
    this.state = samplingState(backend, [new Sequence(0, request([firstToken], 1), undefined)], 0);
    this.pass = {
      backend,
      dtype: 'f32',
      rows: kv,
      inputs: { tokenIds: this.tokenIds },
      state: new PagedState(cache, { kv }),
      derived: new Derived(backend, [1]),
    };
  }

  part<M extends Module>(name: string): M {
    return this.model.children.get('model')!.children.get(name) as M;
  }

  layer(index: number, x: Tensor): Tensor {
    const block = this.part<ModuleList<Block>>('layers').items[index];
    return runLayers([block], x, this.pass, 'model.layers', (layer, h) => layer.forward(h, index, this.pass));
  }

  advance(sampled: Tensor): void {
    advance(sampled, { tokenIds: this.tokenIds, ...(this.pass.rows as Required<Pass['rows']>) }, this.state);
  }
}

describe.each<[string, () => Driver]>([
  ['driver to driver', () => new ReferenceDriver()],
  ['through host memory', () => Object.assign(new ReferenceDriver(), { copyFrom: undefined })],
])('a step of two devices, %s', (_, open) => {
  it('gives the tokens of one, as often as it is replayed', async () => {
    const [front, back] = [new Place(backendOf(open()), 7), new Place(backendOf(open()), 7)];
    const hidden = [front, back].map(({ backend }) => backend.tensor(new Float32Array(16), [1, 16], 'f32'));
    const sampled = [front, back].map(({ backend }) => backend.tensor([0], [1], 'i32'));
    const embed = front.part<Module & { forward(ids: Tensor, dtype: 'f32'): Tensor }>('embed_tokens');
    const norm = back.part<Module & { forward(x: Tensor): Tensor }>('norm');
    const firstLayer = () => copy(front.layer(0, embed.forward(front.tokenIds, 'f32')), hidden[0]);
    const secondLayer = () => {
      const x = norm.forward(back.layer(1, hidden[1].to(back.backend)));
      const tokens = sample(back.model.logits(x), back.state);
      copy(tokens, sampled[1]);
      back.advance(tokens);
    };
    const advanceFront = () => front.advance(sampled[0]);
    const there = { kind: 'copy', from: hidden[0], to: hidden[1] } as const;
    const home = { kind: 'copy', from: sampled[1], to: sampled[0] } as const;
    const stepOf = (on: (place: Place, run: () => void) => Segment): Segment[] => [
      on(front, firstLayer),
      there,
      on(back, secondLayer),
      home,
      on(front, advanceFront),
    ];
    const directly = stepOf(({ backend }, run) => ({ kind: 'host', run: () => backend.scope(run) }));
    const tokens: Promise<Int32Array>[] = [];
    replaySegments(directly);
    tokens.push(sampled[1].data());
    const recorded = stepOf(({ backend }, run) => ({ kind: 'program', program: backend.capture(run) }));
    for (let step = 1; step < 6; step++) {
      replaySegments(recorded);
      tokens.push(sampled[1].data());
    }
    const expected = await stepByStep(front.model, front.backend, [7], 6);
    expect((await Promise.all(tokens)).map(([token]) => token)).toEqual(expected);
    expect(new Set(expected).size).toBeGreaterThan(2);
    disposeSegments(recorded);
    expect(() => replaySegments(recorded)).toThrow('the program was disposed');
  });
});
