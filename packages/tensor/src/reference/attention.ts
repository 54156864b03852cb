import type { CommandArgs } from '../driver/schema.js';
import { softmaxOf } from './maths.js';
import type { Cells, ReferenceMemory } from './memory.js';

type Paged = Pick<CommandArgs<'attention'>, 'numKvHeads' | 'blockSize' | 'maxBlocks'>;

/** Row of a cache tensor that head `head` has at a position of a sequence. */
const slot = (
  tables: Cells,
  { numKvHeads, blockSize, maxBlocks }: Paged,
  sequence: number,
  position: number,
  head: number,
): number => {
  const block = tables.get(sequence * maxBlocks + Math.floor(position / blockSize));
  return (block * numKvHeads + head) * blockSize + (position % blockSize);
};

const queryAt = (
  {
    numHeads,
    numKvHeads,
    headDim,
    qOffset,
    qGroupStride,
    rowStride,
  }: Pick<CommandArgs<'attention'>, 'numHeads' | 'numKvHeads' | 'headDim' | 'qOffset' | 'qGroupStride' | 'rowStride'>,
  token: number,
  head: number,
): number => {
  const group = numHeads / numKvHeads;
  return token * rowStride + qOffset + Math.floor(head / group) * qGroupStride + (head % group) * headDim;
};

/** Factor on a rotated query. */
export const queryScaling = (
  { scalingBeta, scalingLength }: Pick<CommandArgs<'ropeKvWrite'>, 'scalingBeta' | 'scalingLength'>,
  position: number,
): number => (scalingBeta === 0 ? 1 : 1 + scalingBeta * Math.log(1 + Math.floor(position / scalingLength)));

export function ropeKvWrite(args: CommandArgs<'ropeKvWrite'>, memory: ReferenceMemory): void {
  const [qkv, keys, values, positions, sequenceOf, tables] = [
    args.qkv,
    args.keyCache,
    args.valueCache,
    args.positions,
    args.sequenceOf,
    args.blockTables,
  ].map((ref) => memory.cells(ref));
  const frequencies = args.inverseFrequencies && memory.cells(args.inverseFrequencies);
  const half = args.rotaryDim / 2;
  const rotated = (start: number, token: number): number[] => {
    const head = Array.from({ length: args.headDim }, (_, i) => qkv.get(start + i));
    for (let i = 0; frequencies && i < half; i++) {
      const frequency = frequencies.get((args.perSequence ? sequenceOf.get(token) * half : 0) + i);
      const angle = Math.fround(positions.get(token) * frequency);
      const [cos, sin] = [Math.cos(angle) * args.ropeScale, Math.sin(angle) * args.ropeScale];
      const [a, b] = (args.interleaved ? [2 * i, 2 * i + 1] : [i, i + half]).map((at) => at + args.rotaryOffset);
      [head[a], head[b]] = [head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin];
    }
    return head;
  };
  for (let token = 0; token < args.tokens; token++) {
    for (let head = 0; head < args.numHeads; head++) {
      const at = queryAt(args, token, head);
      const scaling = queryScaling(args, positions.get(token));
      rotated(at, token).forEach((value, i) => qkv.set(at + i, value * scaling));
    }
    for (let head = 0; head < args.numKvHeads; head++) {
      const to = slot(tables, args, sequenceOf.get(token), positions.get(token), head);
      const row = token * args.rowStride + head * args.kvStride;
      rotated(row + args.kOffset, token).forEach((value, i) => keys.set(to * args.headDim + i, value));
      for (let i = 0; i < args.valueDim; i++) values.set(to * args.valueDim + i, qkv.get(row + args.vOffset + i));
    }
  }
}

function checkLength({ causal }: CommandArgs<'attention'>, sequence: number, rows: number, length: number): void {
  if (causal && length < rows)
    throw new Error(`sequence ${sequence} has more rows than its context length ${length}, which counts them`);
  if (rows > 0 && length < 1) throw new Error(`sequence ${sequence} has ${rows} rows and no keys`);
}

const isVisible = ({ causal, window }: CommandArgs<'attention'>, query: number, key: number): boolean =>
  !(causal && key > query) && !(window > 0 && key <= query - window);

type Score = (query: number, key: number, head: number, queryPosition: number, keyPosition: number) => number;

/** Of a query and a key, which begin at elements of their tensors. */
function scorer(args: CommandArgs<'attention'>, qkv: Cells, keys: Cells, memory: ReferenceMemory): Score {
  const slopes = args.alibiSlopes && memory.cells(args.alibiSlopes);
  const bias = args.distanceBias && memory.cells(args.distanceBias);
  return (query, key, head, queryPosition, keyPosition) => {
    const distance = keyPosition - queryPosition;
    let dot = 0;
    for (let i = 0; i < args.headDim; i++) dot += qkv.get(query + i) * keys.get(key + i);
    let score = dot * args.scale;
    if (slopes) score += slopes.get(head) * distance;
    const row = Math.min(Math.max(distance + args.biasOffset, 0), args.distances - 1);
    if (bias) score += bias.get(row * args.numHeads + head);
    return args.softcap > 0 ? args.softcap * Math.tanh(score / args.softcap) : score;
  };
}

/**
 * @param steps how scores (a sink last, if there is one) become weights of the values, and how a result is rounded
 * beside the dtype of the output
 */
export function attention(
  args: CommandArgs<'attention'>,
  memory: ReferenceMemory,
  { mix, round }: { mix: (scores: readonly number[]) => number[]; round: (value: number) => number } = {
    mix: softmaxOf,
    round: (value) => value,
  },
): void {
  const [qkv, keys, values, out, starts, lengths, tables] = [
    args.qkv,
    args.keyCache,
    args.valueCache,
    args.out,
    args.sequenceStarts,
    args.contextLengths,
    args.blockTables,
  ].map((ref) => memory.cells(ref));
  const scoreOf = scorer(args, qkv, keys, memory);
  const sinks = args.sinks && memory.cells(args.sinks);
  const { headDim, valueDim, numHeads, numKvHeads } = args;
  for (let sequence = 0; sequence < args.sequences; sequence++) {
    const [start, end, length] = [starts.get(sequence), starts.get(sequence + 1), lengths.get(sequence)];
    checkLength(args, sequence, end - start, length);
    for (let token = start; token < end; token++) {
      const position = length - (end - token);
      const visible = Array.from({ length }, (_, p) => p).filter((p) => isVisible(args, position, p));
      for (let head = 0; head < numHeads; head++) {
        const kvHead = Math.floor(head / (numHeads / numKvHeads));
        const slots = visible.map((p) => slot(tables, args, sequence, p, kvHead));
        const query = queryAt(args, token, head);
        const scores = slots.map((at, i) => scoreOf(query, at * headDim, head, position, visible[i]));
        const weights = mix(sinks ? [...scores, sinks.get(head)] : scores);
        for (let i = 0; i < valueDim; i++) {
          const sum = slots.reduce((total, at, p) => total + weights[p] * values.get(at * valueDim + i), 0);
          out.set((token * numHeads + head) * valueDim + i, round(sum));
        }
      }
    }
  }
}
