"""The PyTorch reference's recipe: YOLOv1 with a ResNet-34 backbone on PASCAL VOC 2007 + 2012.

Reproduces  "Object detection from scratch with Pytorch: YOLOv1" (notebook yolov1-v2 of 2021-09,
            gitE0Z9/pytorch-implementations): VOC2007 test mAP 57.3 by its own evaluation
            (`--config.eval.protocol=reference`), trained on the 16,551 images of VOC2007 + VOC2012
            trainval.
Command     python -m yolov1_jax.main --config=configs/r34.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
Needs       a GPU or TPU, the VOC tars (or the network), and ImageNet weights in torchvision's
            naming: a safetensors or .pth file, or hf://timm/resnet34.tv_in1k. VOC2012 alone, as the
            article's text says: --config.data.train="voc/2012:train+validation"
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "detection"  # or "classification", to pretrain a backbone: configs/pretrain.py
    config.seed = 0  # initial weights, order of the images, augmentation
    config.image_size = 448  # pixels, both sides; images are stretched to it
    config.compute_dtype = "float32"  # or "bfloat16"; parameters and statistics stay float32
    # (GPUs and TPUs multiply float32 in less unless JAX_DEFAULT_MATMUL_PRECISION=highest is set)

    config.data = data = ConfigDict()
    data.source = "tfds"  # "tfds" (PASCAL VOC), "folder" (own data) or "synthetic"
    # tfds: its data_dir, by default ~/tensorflow_datasets; folder: see docs/data.md
    data.root = config_dict.placeholder(str)
    # folder: of the annotations, "voc", "yolo" or "coco"; "auto" finds out; or "classes": images in
    # a folder for each class
    data.format = "auto"
    data.eval_fraction = 0.2  # folder: of the images, for the split val if the data have none
    data.train = ("voc/2007:train+validation", "voc/2012:train+validation")
    data.eval = ("voc/2007:test",)
    # Loader processes, at most one for each CPU; 0 loads in threads of the main process.
    data.num_workers = 8
    # Length of an epoch, for synthetic scenes, which never end; None: that of the training set
    data.images_per_epoch = config_dict.placeholder(int)
    data.train_difficult = False  # whether objects marked `difficult` are trained on
    data.unknown_classes = "refuse"  # or "skip": objects of classes that class_names lacks
    data.unannotated = "skip"  # images without annotation; "background": trained on, no objects
    data.resize = "opencv"  # of evaluation and prediction; "darknet": its bilinear rule, unrounded
    data.window_margin = 0.1  # classification: context around an object, in its longer sides

    # Augmentation of the reference, albumentations 1.0 in its order and with its defaults pinned.
    data.augmentation = augmentation = ConfigDict()
    augmentation.enabled = True
    augmentation.flip_probability = 0.5  # left to right
    augmentation.color_probability = 0.5
    augmentation.brightness = 0.2  # factor drawn from [1 - b, 1 + b]; likewise the next two
    augmentation.contrast = 0.2
    augmentation.saturation = 0.2
    augmentation.hue = 0.2  # shift drawn from [-h, h], in turns of the colour circle
    augmentation.affine_probability = 0.5
    augmentation.shift = 0.0625  # drawn per axis from [-s, s], in image sizes
    augmentation.scale = 0.1  # one factor drawn from [1 - s, 1 + s], about the centre
    augmentation.min_area = 1024.0  # pixels^2 of the network input; smaller boxes are dropped
    augmentation.min_visibility = 0.3  # fraction of its area that a box must keep
    # Not the reference's; see docs/recipe.md, as for all that is marked "(recipe)".
    augmentation.expand_probability = 0.0  # image on a larger canvas
    augmentation.expand = 2.0  # its side in image sides, drawn from [1, e]
    augmentation.crop_probability = 0.0  # a part of it, stretched, in which an object is seen
    augmentation.crop = 0.4  # width and height drawn from [c, 1]
    augmentation.mosaic_probability = 0.0  # four images in one
    augmentation.erase_probability = 0.0  # a rectangle in one colour
    augmentation.erase = 0.2  # its area drawn from [0.02, e]
    # Darknet's, always where they are on; see docs/darknet.md
    augmentation.jitter = 0.0  # each side moves by a part drawn from [-j, j], edges repeat
    augmentation.saturation_scale = 1.0  # of HSV, times or over a factor drawn from 1 to s
    augmentation.value_scale = 1.0  # the same for the value; either one takes the hue with it
    augmentation.min_side = 0.0  # in image sides; thinner boxes are dropped
    # Classification: a part of the image, or of the window around an object
    augmentation.window_area = 0.08  # drawn from [a, 1]
    augmentation.window_ratio = 4 / 3  # width : height, drawn from [1 / r, r]

    config.model = model = ConfigDict()
    # "resnet18", "resnet34" or "resnet50"; "darknet" or "fast", the paper's (configs/yolov1.py); or
    # "layers", which --config=yolov1:FILE.cfg reads from a file of Darknet
    model.backbone = "resnet34"
    model.layers = ()  # of "layers", from the image to the grid: it has no head
    model.grid_size = 7  # S
    model.boxes_per_cell = 2  # K
    # None: the 20 of VOC (tfds), or those found in the training annotations (folder)
    model.class_names = config_dict.placeholder(tuple)
    # Weights to start from: a file of safetensors or of torch.save (.pth), or one on the Hugging
    # Face hub, "hf://OWNER/MODEL[@REVISION][/FILE]", such as "hf://timm/resnet34.tv_in1k"
    model.pretrained = config_dict.placeholder(str)
    # What that file holds: a "backbone" in torchvision's naming; or a whole detector, trained with
    # the PyTorch reference ("reference", channels [conf, x, y, w, h]) or with its later library
    # ("torchlake", channels [x, y, w, h, conf], whose other settings are in the comments below).
    # With train.num_steps=0, a run that evaluates and predicts with that detector as it is.
    # "darknet" and "darknet_backbone" are .weights of Darknet, whole or of the first layers.
    model.pretrained_format = "backbone"
    model.width_multiplier = 1.0  # of all channels; 1 is torchvision's network
    # BatchNorm of the head and of Darknet's backbones: "torch", "darknet" (epsilon beside the root,
    # momentum 0.99) or "none". ResNets always have PyTorch's.
    model.norm = "torch"
    # After its 3x3 convolutions: "convolutional" (1x1), "connected" (a hidden layer, dropout and a
    # linear layer: the paper), or "local" (a locally connected neck in place of the hidden layer:
    # Darknet's yolov1.cfg)
    model.head = "convolutional"
    model.head_depth = 4  # 3x3 convolutions
    model.head_channels = 1024
    model.head_neck_channels = config_dict.placeholder(int)  # 256: torchlake's extra layer
    model.head_hidden = config_dict.placeholder(int)  # units; 4096 in the paper
    model.head_dropout = 0.0  # probability; 0.5 in the paper, none in "convolutional"
    model.head_negative_slope = 0.0  # 0 is ReLU, 0.1 the leaky ReLU of the paper and of torchlake
    # The reference only divides by 255, although its backbone was trained with ImageNet's mean
    # (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225), which torchlake applies.
    model.pixel_mean = (0.0, 0.0, 0.0)  # of RGB in [0, 1]
    model.pixel_std = (1.0, 1.0, 1.0)

    # Outputs are the values themselves; or logits of x, y, w, h and confidence, "sigmoid" (recipe);
    # or the values, but the roots of w and h, "darknet", with Darknet's loss (docs/darknet.md)
    model.prediction = "raw"

    config.loss = loss = ConfigDict()
    loss.coordinate_weight = 5.0  # lambda_coord
    loss.object_weight = 1.0
    loss.no_object_weight = 0.5  # lambda_noobj
    loss.class_weight = 1.0
    loss.objectness_target = "iou"  # or "one"
    loss.no_object_boxes = "all"  # that are not responsible; or "empty_cells" only
    # Boxes with a larger IoU with any object need not be confident of nothing (recipe)
    loss.ignore_iou = config_dict.placeholder(float)
    loss.xy_unit = "image"  # of x and y in a cell: "image" (reference) or "cell" (paper)
    loss.box = "squared_roots"  # or, for "sigmoid" predictions, "giou" or "ciou" (recipe)
    loss.confidence = "squared"  # or, for "sigmoid" predictions, "cross_entropy" (recipe)
    loss.class_loss = "squared"  # or "softmax", or "bernoulli": each class by itself
    loss.label_smoothing = 0.0  # of "softmax" (recipe)
    loss.sqrt_epsilon = 1e-5
    loss.reduction = "sum"  # over the batch; or "mean"
    loss.collision = "last"  # which object of a shared cell owns its box: "last" or "first"
    loss.class_target = "all"  # classes of a shared cell: of "all" its objects or of the "winner"

    config.train = train = ConfigDict()
    train.batch_size = 16  # images per step, over all devices; BatchNorm sees this many
    train.accumulation_steps = 4  # steps per update of the weights: 64 images
    train.num_epochs = 150.0
    train.num_steps = config_dict.placeholder(int)  # wins over num_epochs
    train.min_steps = config_dict.placeholder(int)  # of num_epochs, for few images
    train.plain_fraction = 0.0  # of the run, at its end: no mosaic, expand, crop, erasing (recipe)
    train.patience = config_dict.placeholder(int)  # evaluations without a better mAP, then stop
    train.max_hours = config_dict.placeholder(float)  # stop after this time
    train.log_every_steps = 50
    train.eval_every_epochs = 10.0
    train.eval_every_steps = config_dict.placeholder(int)  # wins over eval_every_epochs
    train.checkpoint_every_steps = 1000  # besides one at every evaluation; None: only those
    train.keep_checkpoints = 2  # the latest ones; the best is kept as well

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adam"  # "adam", "adamw" or "sgd"
    optimizer.learning_rate = 1e-4
    optimizer.weight_decay = 5e-4  # adam, sgd: L2 added to the gradient
    optimizer.decay_norms = True  # biases and BatchNorm's scales decay as well
    optimizer.backbone_factor = 1.0  # of the backbone's learning rate; 0 freezes it (recipe)
    optimizer.beta1 = 0.9  # adam
    optimizer.beta2 = 0.999  # adam
    optimizer.epsilon = 1e-8  # adam
    optimizer.momentum = 0.9  # sgd
    optimizer.schedule = "constant"  # "constant", "step" or "cosine"
    optimizer.warmup_epochs = 0.0  # linear; the first update already has its share
    optimizer.decay_epochs = ()  # "step": where the rate is multiplied by decay_factor
    optimizer.decay_factor = 0.1
    # "step", as Darknet's steps and scales: the rate is multiplied from these updates on, counted
    # from 1, each by a factor of its own
    optimizer.decay_updates = ()
    optimizer.decay_scales = ()
    optimizer.final_fraction = 0.0  # "cosine": of the learning rate, at the end
    optimizer.clip_norm = config_dict.placeholder(float)  # of the gradient, over all parameters
    optimizer.ema_decay = config_dict.placeholder(float)  # average of the weights, for evaluation

    config.eval = evaluation = ConfigDict()
    evaluation.protocol = "voc07"  # "voc07" (11 points), "voc10" (area) or "reference" (its own)
    # The reference's 0.3 is part of the "reference" protocol; official AP needs the low scores too.
    evaluation.score_threshold = 0.005
    evaluation.nms_iou_threshold = 0.5
    evaluation.classes_per_box = "best"  # or "all": a box may be detected as several classes
    evaluation.clip = (
        "before_nms"  # boxes to the image; or "after_nms", one-sided (docs/darknet.md)
    )
    evaluation.batch_size = 32
    return config.lock()
