import type { Step } from './fill.js';
import { formatSize } from './parse-size.js';
import type { Device } from './types.js';

/** A device on which a module, or the module it was part of, did not fit. */
export interface Rejection {
  device: Device;
  /** What was tried: the module itself or one above it. */
  module: string;
  /** Bytes it would have taken, with what is tied to it. */
  needed: number;
  /** Bytes that were available to it. */
  available: number;
  /** Bytes kept free there for the largest layer that may have to be brought back. */
  reserved: number;
  /**
   * What was done: it was split, what is tied to it was split, something smaller was looked for, or the device was
   * left.
   */
  then: 'split' | 'split tied' | 'fallback' | 'next device';
}

/** Why a module is where it is. */
export interface Placement {
  module: string;
  device: Device;
  /** Bytes counted for it on the device. */
  bytes: number;
  /**
   * Bytes of the budget that were left on the device before and after; null when a caller's map decided, or no budget
   * limits it.
   */
  before: number | null;
  after: number | null;
  /** Bytes of it that were kept free at that moment. */
  reserved: number;
  /** `fits`: the first device in order with room. `tied`: came along with `with`. `given`: the caller's map says so. */
  because: 'fits' | 'tied' | 'given';
  with: string | null;
  /** What did not fit before. */
  rejected: Rejection[];
}

export interface Explanation {
  placements: Placement[];
  /** The same, as a table for people. */
  table: string;
}

const left = (budget: number): number | null => (Number.isFinite(budget) ? budget : null);

/** Placements in the order in which they were made, from the steps of the planner. */
export const placementsOf = (steps: readonly Step[], bytesOf: (path: string) => number): Placement[] => {
  const rejections = new Map<string, Rejection[]>();
  const placements: Placement[] = [];
  for (const step of steps) {
    const { module, device, budget, used, reserved, needed, outcome } = step;
    if (outcome !== 'placed') {
      const tried = {
        device,
        module,
        needed,
        available: Math.max(0, budget - reserved - used),
        reserved,
        then: outcome,
      };
      rejections.set(module, [...(rejections.get(module) ?? []), tried]);
      continue;
    }
    const common = { device, before: left(budget - used), after: left(budget - used - needed), reserved };
    placements.push({
      module,
      bytes: bytesOf(module),
      ...common,
      because: 'fits',
      with: null,
      rejected: rejectionsOf(module, rejections),
    });
    for (const path of new Set(step.tied)) {
      placements.push({
        module: path,
        bytes: bytesOf(path),
        ...common,
        because: 'tied',
        with: module,
        rejected: rejectionsOf(path, rejections),
      });
    }
  }
  return placements;
};

/** Rejections of the modules above a path, outermost first, then of itself. */
const rejectionsOf = (path: string, rejections: ReadonlyMap<string, Rejection[]>): Rejection[] => {
  const parts = path.split('.');
  return parts.flatMap((_, index) => rejections.get(parts.slice(0, index + 1).join('.')) ?? []);
};

/** Placements of a map that the caller gave. */
export const givenPlacements = (
  map: Readonly<Record<string, Device>>,
  bytesOf: (path: string) => number,
): Placement[] =>
  Object.entries(map).map(([module, device]) => ({
    module,
    device,
    bytes: bytesOf(module),
    before: null,
    after: null,
    reserved: 0,
    because: 'given',
    with: null,
    rejected: [],
  }));

/** `GPU 0`, `cpu`. */
export const deviceName = (device: Device): string => (typeof device === 'number' ? `GPU ${device}` : device);

const maybe = (bytes: number | null): string => (bytes === null ? '-' : formatSize(bytes));

const sentence = ({ device, module, needed, available, then }: Rejection): string => {
  const what = `${module} needs ${formatSize(needed)}, ${deviceName(device)} had ${formatSize(available)}`;
  return then === 'split' ? `${what}: split` : what;
};

/** The devices that were left and the modules above that were split, each told at the first placement after it. */
const reason = ({ because, with: partner, device, rejected, reserved }: Placement, told: Set<Rejection>): string => {
  if (because === 'given') return 'the given map says so';
  if (because === 'tied') return `shares a tensor with ${partner}`;
  const news = rejected.filter(
    (rejection) => !told.has(rejection) && (rejection.then === 'next device' || rejection.then === 'split'),
  );
  for (const rejection of news) told.add(rejection);
  const kept = reserved > 0 ? [`${formatSize(reserved)} kept free`] : [];
  return [device === 'disk' ? 'disk takes the rest' : 'fits', ...kept, ...news.map(sentence)].join('; ');
};

const columns = ['module', 'size', 'device', 'budget left before', 'after', 'why'];

/** A table with one line per placement. */
export const placementTable = (placements: readonly Placement[]): string => {
  const told = new Set<Rejection>();
  const rows = placements.map((placement) => [
    placement.module === '' ? '(all)' : placement.module,
    formatSize(placement.bytes),
    deviceName(placement.device),
    maybe(placement.before),
    maybe(placement.after),
    reason(placement, told),
  ]);
  const widths = columns.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const right = new Set([1, 3, 4]);
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (right.has(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd();
  return [line(columns), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
};
