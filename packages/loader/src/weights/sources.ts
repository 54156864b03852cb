// Where a parameter may be in files: what the architecture says of it, and what old files call it.
import { CheckpointError } from '@q/config';
import { dtypeBytes, type ParameterSlot, type Source } from '@q/tensor';
import { groupBy } from '../group-by.js';
import { listNames } from '../list-names.js';
import type { TensorEntry } from '../safetensors/header.js';
import type { Strides } from '../strided.js';

/** Scale and shift of layer norms as TensorFlow calls them (the first BERT models). */
const tensorFlow: Readonly<Record<string, string>> = { weight: 'gamma', bias: 'beta' };

function withOldName(source: Source): readonly Source[] {
  const [, owner, last] = /^(.*LayerNorm)\.(weight|bias)$/.exec(source.name) ?? [];
  return owner === undefined ? [source] : [source, { ...source, name: `${owner}.${tensorFlow[last]}` }];
}

type Named = Pick<ParameterSlot, 'name' | 'sources'>;

/** Where it is saved when no file says otherwise. */
export const usualSource = ({ name, sources }: Named): Source => sources?.[0] ?? { name };

/** Every place to look for it, the first one first. */
export const sourcesOf = ({ name, sources = [{ name }] }: Named): readonly Source[] => sources.flatMap(withOldName);

/** Whether the parameter is the tensor as it is. */
export const isWhole = ({ index, transposed = false, rows }: Source): boolean =>
  index === undefined && !transposed && rows === undefined;

/** Whether the tensor has more than this parameter. */
export const isShared = ({ index, rows }: Source): boolean => index !== undefined || rows !== undefined;

/** A parameter that is kept in a tensor on disk, alone or with others. */
export interface Part {
  readonly parameter: string;
  readonly shape: readonly number[];
  readonly source: Source;
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
const stepOf = ({ rows }: Source): number => rows?.step ?? 1;

/** Rows of the tensor that a part reaches to. */
const reach = ({ shape, source }: Part): number =>
  source.rows ? source.rows.start + (shape[0] - 1) * stepOf(source) + 1 : shape[0];

/** What is wrong with parts that are to be one tensor; undefined when they make it up. */
function flaw(parts: readonly Part[], rows: number): string | undefined {
  const [first] = parts;
  const kind = ({ shape, source: { transposed = false, index } }: Part) =>
    `${shape.slice(1).join()} ${transposed} ${index === undefined}`;
  const wanted = kind(first);
  const other = parts.find((part) => kind(part) !== wanted);
  if (other) return `${first.parameter} and ${other.parameter} are not parts of one shape`;
  const isMatrix = first.shape.length === 2;
  if (first.source.transposed && !isMatrix) return `${first.parameter} is no matrix and cannot be transposed`;
  const groups = groupBy(parts, ({ source }) => source.index ?? 0);
  const count = [...groups.keys()].reduce((most, index) => Math.max(most, index), 0) + 1;
  if (groups.size !== count) return `of ${count} in the stack ${count - groups.size} belong to no parameter`;
  for (const [index, group] of groups)
    if (!fills(group, rows)) return `the ${rows} rows of ${index} belong to no parameter, or to two`;
  return undefined;
}

/** Whether parts take each of the rows once. */
function fills(parts: readonly Part[], rows: number): boolean {
  if (parts.reduce((sum, { shape }) => sum + shape[0], 0) !== rows) return false;
  if (parts.length === 1) return true;
  const taken = new Uint8Array(rows);
  for (const { shape, source } of parts) {
    const start = source.rows?.start ?? 0;
    for (let i = 0; i < shape[0]; i++) taken[start + i * stepOf(source)] += 1;
  }
  return taken.every((times) => times === 1);
}

/**
 * The shape of the tensor on disk that parts of a model make up together. Linear in the rows.
 * @throws CheckpointError naming the tensor when something of it belongs to no parameter, or to two
 */
export function wholeShape(name: string, parts: readonly Part[]): readonly number[] {
  const [{ shape, source }] = parts;
  if (parts.length === 1 && isWhole(source)) return shape;
  const rows = parts.reduce((most, part) => Math.max(most, reach(part)), 0);
  const why = flaw(parts, rows);
  if (why !== undefined)
    throw new CheckpointError('load', 'the parameters that are kept in a tensor do not make it up', {
      tensor: name,
      parameters: listNames(parts.map(({ parameter }) => parameter)),
      why,
      fix: 'a checkpoint that has some of them under names of their own as well is of two saves: fetch it again',
    });
  const matrix = source.transposed ? [shape[1], rows] : [rows, ...shape.slice(1)];
  if (source.index === undefined) return matrix;
  return [parts.reduce((most, part) => Math.max(most, part.source.index! + 1), 0), ...matrix];
}

/**
 * Where a parameter's elements are in the whole tensor, in elements: the first, and the distances of rows and columns.
 */
export interface Place {
  readonly start: number;
  readonly strides: Strides;
}

/**
 * @param whole shape of the tensor on disk, which {@link wholeShape} has approved
 * @param strides of a tensor that does not lie row by row
 */
export function placeOf(source: Source, whole: readonly number[], strides?: Strides): Place {
  const matrix = source.index === undefined ? whole : whole.slice(1);
  const [row, column] = strides ?? [product(matrix.slice(1)), 1];
  const unit = source.transposed ? ([column, row] as const) : ([row, column] as const);
  return {
    start: (source.index ?? 0) * product(matrix) + (source.rows?.start ?? 0) * unit[0],
    strides: [unit[0] * stepOf(source), unit[1]],
  };
}

/** The part of a tensor that a parameter is; the tensor itself where it is all of it. */
export function partOf(entry: TensorEntry, source: Source, shape: readonly number[]): TensorEntry {
  if (isWhole(source)) return entry;
  const { start, strides } = placeOf(source, entry.shape, entry.strides);
  const elements = product(shape);
  const columns = elements / shape[0];
  const dense = (strides[0] === columns || shape[0] === 1) && (strides[1] === 1 || columns === 1);
  const width = dtypeBytes(entry.dtype);
  return {
    ...entry,
    shape,
    elements,
    offset: entry.offset + start * width,
    bytes: elements * width,
    strides: dense ? undefined : strides,
    part: describePart(source),
  };
}

/** Which part it is, for a message. */
function describePart({ index, rows, transposed }: Source): string {
  const parts = [
    ...(index === undefined ? [] : [`${index} of the stack`]),
    ...(rows ? [`rows from ${rows.start}${rows.step === undefined ? '' : ` in steps of ${rows.step}`}`] : []),
    ...(transposed ? ['transposed'] : []),
  ];
  return parts.join(', ');
}
