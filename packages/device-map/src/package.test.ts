import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type ModuleEntry, planPlacement } from './index.js';
import { models } from './testing/golden.js';

/** The sources that index.ts reaches, and what they import from elsewhere. */
const reach = (): { files: string[]; outside: string[] } => {
  const files = new Set<string>();
  const outside = new Set<string>();
  const visit = (url: URL): void => {
    if (files.has(url.href)) return;
    files.add(url.href);
    for (const [, name] of readFileSync(url, 'utf8').matchAll(/from '([^']+)'/g)) {
      if (name!.startsWith('.')) visit(new URL(name!.replace(/\.js$/, '.ts'), url));
      else outside.add(name!);
    }
  };
  visit(new URL('./index.ts', import.meta.url));
  return { files: [...files], outside: [...outside] };
};

describe('the package', () => {
  it('runs where there is no Node: imports only @q/config, uses no global of Node', () => {
    const { files, outside } = reach();
    expect(files.length).toBeGreaterThan(20);
    expect(outside).toEqual(['@q/config']);
    for (const file of files)
      expect(readFileSync(new URL(file), 'utf8'), file).not.toMatch(/\b(process\.|Buffer\.|require\(|__dirname)/);
  });

  it('plans bloom-176b and a model of 1,000 layers', () => {
    const modules: ModuleEntry[] = [
      ['', 'Model'],
      ['embed', 'Embedding', [['weight', [32_000, 512]]]],
      ['layers', 'ModuleList'],
    ];
    for (let index = 0; index < 1000; index++) {
      const path = `layers.${index}`;
      modules.push([path, 'Block'], [`${path}.attn`, 'Attention'], [`${path}.mlp`, 'Mlp']);
      for (const name of ['attn.q', 'attn.k', 'attn.v', 'attn.o', 'mlp.gate', 'mlp.up', 'mlp.down'])
        modules.push([`${path}.${name}`, 'Linear', [['weight', [512, 512]]]]);
    }
    modules.push(['head', 'Linear', [['weight', [32_000, 512]]]]);
    const deep = { modules, noSplit: ['Block'], tied: [['embed.weight', 'head.weight']] };
    const gpus = (size: string) => Array.from({ length: 8 }, (_, id) => [id, size] as const);
    const time = (name: string, run: () => { usage: readonly { weights: number }[] }): void => {
      run();
      const start = performance.now();
      const { usage } = run();
      console.log(`${name}: ${(performance.now() - start).toFixed(1)} ms`);
      expect(usage.filter(({ weights }) => weights > 0)).toHaveLength(8);
    };
    time('bloom-176b', () => planPlacement({ tree: models['bloom-176b']!, dtype: 'float16', maxMemory: gpus('60GB') }));
    time('1,000 layers, 9,002 tensors and modules', () => planPlacement({ tree: deep, maxMemory: gpus('2GB') }));
  });
});
