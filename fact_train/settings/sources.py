"""SOURCES: where settings and presets come from. Fields name a key; `--list-axes` prints both."""

SOURCES = {
    "this project": "this project; no earlier publication is known to us",
    "Progressive GAN": "Karras et al. 2018, arXiv:1710.10196",
    "StyleGAN": "Karras et al. 2019, arXiv:1812.04948",
    "StyleGAN2": "Karras et al. 2020, arXiv:1912.04958",
    "StyleGAN2-ADA": "Karras et al. 2020, arXiv:2006.06676, and NVlabs/stylegan2-ada-pytorch @d72cc7d",
    "R1": "Mescheder et al. 2018, arXiv:1801.04406",
    "R3GAN": "Huang et al. 2025, arXiv:2501.05441; its schedules are cosines, --r1-gamma-final is geometric",
    "adversarial losses": "Goodfellow et al. 2014, arXiv:1406.2661 (logistic); Lim & Ye 2017, "
    "arXiv:1705.02894 (hinge); Jolicoeur-Martineau 2018, arXiv:1807.00734 (relativistic), paired as in Huang "
    "et al. 2025, arXiv:2501.05441; Yu et al. 2021, arXiv:2103.16748 (dual-contrastive), where G swaps the "
    "roles as in lucidrains/stylegan2-pytorch @ce7f830",
    "top-k training": "Sinha et al. 2020, arXiv:2002.06224",
    "WGAN-GP": "Gulrajani et al. 2017, arXiv:1704.00028; at real images as in the StylEx study",
    "Adam": "Kingma & Ba 2015, arXiv:1412.6980",
    "TTUR": "Heusel et al. 2017, arXiv:1706.08500",
    "mixed precision": "Micikevicius et al. 2018, arXiv:1710.03740",
    "projection discriminator": "Miyato & Koyama 2018, arXiv:1802.05637",
    "DiffAugment": "Zhao et al. 2020, arXiv:2006.10738",
    "FreezeD": "Mo et al. 2020, arXiv:2002.10964; layers are counted as in StyleGAN2-ADA",
    "AdaConv": "Chandran et al. 2021, Adaptive Convolutions for Structure-Aware Style Transfer, CVPR",
    "Overparameterized StyleGAN": "Poirier-Ginter et al. 2022, arXiv:2205.06304",
    "style experiments": "unpublished experiments on AFHQ cats at 32 px, batch 8, one seed, judged by eye: "
    "EXPERIMENTS.md @366721a and later training scripts of yohan-pg/stylegan2-ada-pytorch; not reproduced by "
    "this project",
    "ALAE": "Pidhorskyi et al. 2020, arXiv:2004.04467; its squared distance is an absolute one here",
    "VAE/GAN": "Larsen et al. 2016, arXiv:1512.09300",
    "StylEx": "Lang et al. 2021, arXiv:2104.13369",
    "StylEx study": "NoahVl/Explaining-In-Style-Reproducibility-Study @18fe8cc",
}
