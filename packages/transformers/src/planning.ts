// Plans for a config, or for the model in a folder as its weights have it.
import { assertCallback, assertKnownKeys, assertSignal, CheckpointError } from '@q/config';
import type { Message, Plan } from '@q/device-map';
import { hasCheckpoint } from '@q/loader';
import type { ModelConfig } from '@q/models';
import { hubOptionNames, modelFolder, type HubOptions } from './files.js';
import { assertModelConfig, planConfig, planOptionNames, type PlanOptions } from './placement.js';
import { openWeights, statedConfig } from './weight-source.js';

/** What to plan for, and where the model comes from. */
export interface PlanFolderOptions extends PlanOptions, HubOptions {
  /** Keys to read config.json without; `rope_scaling.alpha` names one inside an object. */
  readonly ignoreConfigKeys?: readonly string[];
}

/**
 * Where the modules of a model would go. Of a config sizes follow alone; of a folder or Hub id they are those that
 * loading would find, by the headers of the weights: a `quantization_config` that is left over counts no more than one
 * that is missing, and a head that differs from the embedding it is tied to has its own bytes. What the weights say
 * otherwise than config.json is in `plan.messages` (code `checkpoint`). Nothing is downloaded but config.json; without
 * weights beside it, it decides.
 * @param model what AutoConfig gives, or a folder, a Hub id, or `@q/nano`
 * @throws PlanRefusedError, ConfigError, UnsupportedError; PlacementError when this machine has no device to plan for;
 *   for a folder also CheckpointError, as loading does
 */
export async function planFor(model: ModelConfig, options?: PlanOptions): Promise<Plan>;
export async function planFor(model: string, options?: PlanFolderOptions): Promise<Plan>;
export async function planFor(model: ModelConfig | string, options: PlanFolderOptions = {}): Promise<Plan> {
  if (typeof model !== 'string') {
    assertModelConfig('planFor', model);
    assertKnownKeys('planFor', options, planOptionNames);
    return planConfig(model, options);
  }
  assertKnownKeys('planFor', options, [...planOptionNames, ...hubOptionNames, 'ignoreConfigKeys']);
  assertSignal('planFor', options.signal);
  assertCallback('planFor', 'onWarning', options.onWarning);
  const lines: string[] = [];
  const note = (line: string) => {
    lines.push(line);
    options.onWarning?.(line);
  };
  const folder = await modelFolder(model, { ...options, files: 'config', onWarning: note });
  const stated = await statedConfig(folder, options);
  lines.push(...stated.config.warnings.map(({ message }) => message));
  if (!(await hasWeights(model, folder, options, lines))) {
    if (stated.unread) throw stated.unread;
    return withLines(await planConfig(stated.config, options), lines);
  }
  await using source = await openWeights(stated, undefined, folder, options, lines);
  return withLines(
    await planConfig(source.config, options, { storedIn: source.dtype, without: source.survey.without }),
    lines,
  );
}

/** Whether the weights lie in the folder; a snapshot of the hub that lacks some counts as one without any. */
async function hasWeights(
  model: string,
  folder: string,
  options: PlanFolderOptions,
  lines: string[],
): Promise<boolean> {
  if (!(await hasCheckpoint(folder))) return false;
  const local = { ...options, files: 'model', localFilesOnly: true, onWarning: undefined } as const;
  try {
    return (await modelFolder(model, local)) === folder;
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    lines.push('the cached snapshot lacks a part of the weights: planned from config.json alone');
    return false;
  }
}

const withLines = (plan: Plan, lines: readonly string[]): Plan => ({
  ...plan,
  messages: [...lines.map((text): Message => ({ level: 'warning', code: 'checkpoint', text })), ...plan.messages],
});
