// Arguments that are none of what a function takes: a ConfigError that says what they are.
import { ConfigError } from '@q/config';
import { expect, it } from 'vitest';
import {
  type ModuleTree,
  checkDeviceMap,
  cleanDeviceMap,
  computeBufferSize,
  computeModuleSizes,
  findDevice,
  getMaxLayerSize,
  inferAutoDeviceMap,
  planPlacement,
  readTree,
  renderBars,
} from './index.js';

const tree: ModuleTree = {
  modules: [
    ['', 'Model'],
    ['h', 'Linear', [['weight', [10, 5]]]],
  ],
};
const plan = planPlacement({ tree, maxMemory: { cpu: 1000 } });

it('bars of what is no plan are refused by name', () => {
  for (const wrong of [undefined, null, 5, 'auto', {}, { usage: 3 }])
    expect(() => renderBars(wrong as never), String(wrong)).toThrow(ConfigError);
  expect(() => renderBars(undefined as never)).toThrow(/the plan is undefined.*planPlacement\(\) or planFor\(\)/);
  for (const options of [{ width: 'wide' }, { width: NaN }, { ascii: 1 }, { colour: true }, null])
    expect(() => renderBars(plan, options as never), JSON.stringify(options)).toThrow(ConfigError);
});

it('what is no request, no tree and no map is a ConfigError wherever it is given', () => {
  for (const wrong of [undefined, null, 5, 'x', {}, [], { modules: 3 }]) {
    const given = wrong as never;
    const calls = {
      planPlacement,
      readTree,
      computeModuleSizes,
      computeBufferSize,
      getMaxLayerSize,
      inferAutoDeviceMap,
    };
    for (const [name, call] of Object.entries(calls)) expect(() => call(given, given), name).toThrow(ConfigError);
    expect(() => planPlacement({ tree: given })).toThrow(ConfigError);
    if (typeof wrong === 'object' && wrong !== null) continue; // a record or a list is a map
    expect(() => cleanDeviceMap(given)).toThrow(ConfigError);
    expect(() => findDevice(given, 'h')).toThrow(ConfigError);
    expect(() => checkDeviceMap(tree, given)).toThrow(ConfigError);
  }
});
