import { assertInteger, assertKnownKeys, ConfigError, describeValue } from '@q/config';
import { deviceName } from './explain.js';
import { formatSize } from './parse-size.js';
import type { DeviceUsage } from './usage.js';

export interface BarOptions {
  /** Characters of a line. Default 80, at least 40. */
  width?: number;
  /** Only ASCII characters. Default false. */
  ascii?: boolean;
}

const glyphs = { unicode: '█▓▒░', ascii: '#+=.' };

/**
 * A bar per device, as lines of text: weights, KV cache, reserve, free. A device without a budget has a bar of what it
 * holds. What is not zero gets at least one character, as far as there is room.
 * @throws ConfigError for what is no plan, and for options
 */
export const renderBars = (plan: { usage: readonly DeviceUsage[] }, options: BarOptions = {}): string => {
  checkArguments(plan, options);
  const width = Math.max(40, options.width ?? 80);
  const marks = options.ascii === true ? glyphs.ascii : glyphs.unicode;
  const shown = plan.usage.filter((row) => row.budget > 0 || row.weights + row.kvCache + row.reserved > 0);
  const used = shown.map((row) => row.device !== 'disk' || row.modules > 0 || Number.isFinite(row.budget));
  const rows = shown.filter((_, index) => used[index]);
  const names = rows.map(({ device }) => deviceName(device));
  const labels = rows.map(label);
  const nameWidth = Math.max(0, ...names.map((name) => name.length));
  const labelWidth = Math.max(0, ...labels.map((text) => text.length));
  const bar = Math.max(8, width - nameWidth - labelWidth - 4);
  const lines = rows.map(
    (row, index) => `${names[index]!.padEnd(nameWidth)} [${drawBar(row, bar, marks)}] ${labels[index]}`,
  );
  const legend = `${marks[0]} weights  ${marks[1]} KV cache  ${marks[2]} reserved  ${marks[3]} free`;
  return [...lines, legend].join('\n');
};

function checkArguments(plan: unknown, options: BarOptions): void {
  if (!Array.isArray((plan as Partial<{ usage: unknown }> | null | undefined)?.usage))
    throw new ConfigError('renderBars', `the plan is ${describeValue(plan)}`, {
      fix: 'give what planPlacement() or planFor() returns',
    });
  assertKnownKeys('renderBars', options, ['width', 'ascii']);
  if (options.width !== undefined) assertInteger('renderBars', 'width', options.width, { min: 0 });
  if (options.ascii !== undefined && typeof options.ascii !== 'boolean')
    throw new ConfigError('renderBars', `ascii is ${describeValue(options.ascii)}`, { fix: 'give true or false' });
}

const label = ({ budget, weights, kvCache, reserved }: DeviceUsage): string => {
  const held = formatSize(weights + kvCache + reserved);
  return Number.isFinite(budget) ? `${held} of ${formatSize(budget)}` : held;
};

const drawBar = ({ budget, weights, kvCache, reserved }: DeviceUsage, width: number, marks: string): string => {
  const parts = [weights, kvCache, reserved];
  const whole = Number.isFinite(budget) ? Math.max(budget, weights + kvCache + reserved) : weights + kvCache + reserved;
  const cells = parts.map((bytes) => (bytes > 0 && whole > 0 ? Math.max(1, Math.round((bytes / whole) * width)) : 0));
  const drawn = cells
    .map((count, index) => marks[index]!.repeat(count))
    .join('')
    .slice(0, width);
  return drawn.padEnd(width, marks[3]);
};
